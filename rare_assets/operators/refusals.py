"""The usual sentences by which a model declines to answer, in the languages they come in."""

# ruff: noqa: RUF001 (Cyrillic letters are meant)

from __future__ import annotations

import re

# A refusal says so at once and says little else; Chinese and Japanese take fewer characters for it.
_LENGTH = 300
_DENSE_LENGTH = 150
_ENGLISH = re.compile(
    r"""\W*(?:
        (?:i(?:'m|\ am)\ )?(?:(?:so|very|really|truly)\ )?sorry\b[^.!?]*?\bi(?:'m|\ am|\ can|\ could|\ will|\ won't|\ must)
        | (?:i\ (?:must\ )?apologi[sz]e|my\ apologies)\b[^.!?]*?\bi(?:'m|\ am|\ can|\ could|\ will|\ won't|\ must)
        | (?:unfortunately,?\ )?i\ (?:can(?:'t|not|\ not)|could(?:n't|\ not)|won't|will\ not|am\ (?:not\ able|unable)\ to)
          \ (?:\w+\ )?(?:help|assist|answer|provide|comply|fulfil?l|create|write|generate|do|discuss|continue|engage|support|respond)\b
        | i(?:'m|\ am)\ (?:not\ able|unable)\ to\b
        | as\ an?\ (?:ai|artificial\ intelligence)(?:,|\ i\b)
        | as\ an?\ (?:(?:ai|artificial\ intelligence)\ (?:model|assistant|chatbot)|(?:ai\ )?(?:large\ )?language\ model)
          (?:,|\b[^.!?;:]{0,80}?\bi\b)
    )""",
    re.VERBOSE,
)
# What nobody says but who declines: the verbs are those of an answer.
_DECLINES = re.compile(
    r"""\W*(?:
        (?:(?:es\ )?tut\ mir\ (?:\w+\ )?leid|leider|entschuldigung|verzeihung|ich\ bed[\w]+re)?[^.!?]{0,40}?
          \b(?:ich\ (?:\w+\ )?(?:kann|darf|werde|m[öo]e?chte)|(?:kann|darf|werde|m[öo]e?chte)\ ich)\b[^.!?]{0,80}?\b(?:nicht|kein\w*)\b[^.!?]{0,60}?
          \b(?:\w*helfen|beantworten|antworten|unterst\w+|bereitstellen|erstellen|nachkommen|erf[üu]e?llen|weiterhelfen|generieren|behilflich|dienen)\b
        | ich\ bin\ (?:leider\ )?nicht\ in\ der\ lage
        | als\ (?:eine?\ )?(?:ki|künstliche\ intelligenz)(?:,|\ \w+\ (?:ich|es\ mir)\b)
        | als\ (?:eine?\ )?(?:(?:ki-|großes\ )?sprachmodell|ki-(?:assistent\w*|modell))(?:,|\b[^.!?;:]{0,60}?\b(?:ich|mir)\b)
        | (?:(?:je\ suis\ )?(?:vraiment\ |sincèrement\ )?d[ée]sol[ée]e?|malheureusement|je\ m'excuse|je\ regrette)?[^.!?]{0,40}?
          \bje\ ne\ (?:peux|puis|pourrai\w*)\ (?:malheureusement\ )?pas\b[^.!?]{0,40}?\b(?:aider|r[ée]pondre|fournir|donner\ suite|traiter|assister|cr[ée]er|g[ée]n[ée]rer|satisfaire|acc[ée]der|continuer|discuter)
        | (?:malheureusement,?\ )?je\ ne\ suis\ (?:malheureusement\ )?pas\ (?:en\ mesure|capable|autoris[ée]e?)
        | en\ tant\ (?:qu'(?:une?\ )?(?:ia|intelligence\ artificielle|assistante?(?:\ (?:ia|virtuel\w*))?)(?:,|\ je\b|\ j')|que\ mod[èe]le\ (?:de\ langage|d'ia))
        | (?:lo\ siento|lamento|disculp\w+|perd[óo]n\w*|lamentablemente|desafortunadamente)?[^.!?]{0,40}?
          \bno\ (?:te\ |le\ )?(?:puedo|podr[ée]|me\ es\ posible|estoy\ en\ condiciones\ de|soy\ capaz\ de)\b[^.!?]{0,30}?\b(?:ayudar|responder|proporcionar|cumplir|crear|generar|asistir|continuar|ofrecer|contestar|atender|hablar)
        | como\ (?:un\ |una\ )?(?:modelo\ de\ (?:lenguaje|linguagem|ia)\b|(?:intelig[êe]nc\w+\ artificial|ia|asistente(?:\ (?:de\ ia|virtual))?)(?:,|\ n[oã]o?\b))
        | (?:desculpe|sinto\ muito|lamento|infelizmente|mi\ dispiace|spiacente|purtroppo)\b[^.!?]{0,40}?\b(?:n[ãa]o|non)\ (?:posso|consigo|sono|mi\ [èe])
        | (?:извините|простите|к\ сожалению|прошу\ прощения|мне\ жаль)?[^.!?]{0,40}?\bне\ (?:могу|смогу)\ (?:\w+\ )?(?:помочь|ответить|предоставить|выполнить|обсуждать|создать|продолжить)
        | как\ (?:языковая\ модель|искусственный\ интеллект|ии)(?:,|\ я\b)
        | (?:عذر|آسف|أعتذر|للأسف).{0,60}?(?:لا\ أستطيع|لا\ يمكنني|لن\ أتمكن|لا\ أقدر)
    )""",
    re.VERBOSE,
)
# An apology for not being able to.
_APOLOGISES = re.compile(
    r"""\W*(?:
        (?:es\ )?tut\ mir\ (?:\w+\ )?leid\b[^.!?]{0,80}?\b(?:kann|darf|werde|m[öo]e?chte)\b[^.!?]{0,60}?\bnicht\b
        | (?:je\ suis\ )?(?:vraiment\ |sincèrement\ )?d[ée]sol[ée]e?\b[^.!?]{0,60}?\bje\ ne\ (?:peux|puis|suis|pourrai\w*)
        | (?:lo\ siento|lamento)\b[^.!?]{0,60}?\bno\ (?:puedo|podr[ée]|estoy|me\ es)
        | (?:извините|простите|мне\ жаль)\b[^.!?]{0,60}?\bне\ (?:могу|смогу)
    )""",
    re.VERBOSE,
)
_DENSE = re.compile(
    r"""\W*(?:
        (?:非常|很|十分|真的)?(?:抱歉|对不起|對不起|遗憾|遺憾|不好意思).{0,30}?(?:无法|不能|没法|沒辦法|没有办法|無法|不便|不会|还没有学会|未能)
        | 我(?:暂时|目前)?(?:无法|不能|没有办法|無法)(?:为您|为你|為您|對此|对此|继续|直接|就此)?.{0,6}?(?:回答|回應|回应|提供|协助|協助|帮助|幫助|满足|完成您|生成|讨论|討論|处理您|给出|参与)
        | 作为(?:一个|一名|一款)?(?:人工智能|ai|语言模型|大语言模型|大型语言模型)(?!工程|专家|研究|开发|产品|领域)
        | 作為(?:一個|一名)?(?:人工智慧|ai|語言模型)(?!工程|專家|研究|開發|產品|領域)
        | (?:让我们换个话题|换个话题)
        | (?:(?:大変|誠に)?申し訳(?:あり|ござい|ない|ご)|すみません|恐れ入りますが|ごめんなさい|残念ながら).{0,60}?(?:できません|出来ません|できかね|いたしかね|しかねます|わかりかね|ございません)
        | .{0,30}?お(?:答え|手伝い|応え|役に立)[^。]{0,8}?(?:できません|できかね|かねます|てません)
        | (?:その|この|ご)(?:ような)?(?:ご)?(?:質問|要求|依頼|リクエスト|要望)に[^。]{0,12}?(?:できません|かねます)
        | (?:私は)?aiとして
        | (?:죄송|미안).{0,60}?(?:수\ 없|어렵|못)
        | .{0,30}?(?:도와\s?드릴|도움을\ 드릴|답변(?:을)?\ (?:드릴|제공할|할)|제공할)\ 수\ 없
    )""",
    re.VERBOSE,
)

# What a refusal closes with; "What can I do?" is what one who asks says.
_OFFER = re.compile(
    r"""(?:(?<=[.!?;:,。！？，])|(?<=[\N{EM DASH}\N{EN DASH}-]\ ))\W*(?:
        (?:but\ |or\ |so\ |and\ |perhaps\ |maybe\ )*(?:
          (?:is\ there|do\ you\ have)\ (?:any|some)(?:thing|one|\ \w+)?\ (?:else|more|other|different)\b
          | would\ you\ (?:like|prefer)\b | do\ you\ (?:want|need)\b | (?:any|some)thing\ else\b
          | (?:how\ |what\ )?(?:else\ )?(?:can|could|may|might)\ i\ (?:\w+\ )?(?:help|assist|offer)\b
          | (?:can|could|would)\ you\ (?:please\ )?(?:rephrase|clarify|(?:provide|share|give|send)\b[^?]*\b(?:more|another|different|text|details)\b)
        )
        | (?:aber\ |oder\ )?(?:(?:wie\ |womit\ |wobei\ )?(?:kann|darf)\ ich\ (?:\w+\ ){0,5}\w*(?:helfen|hilfe|anbieten|unterstützen|behilflich)\b
          | (?:möchten|wünschen)\ sie\b | möchtest\ du\b
          | (?:gibt\ es|haben\ sie|hast\ du|kann\ es)\ (?:noch\ |sonst\ |etwas\ |eine?\ ){1,3}(?:etwas|was|ander\w*|frage\w*|weitere\w*)\b)
        | (?:mais\ |ou\ )?(?:(?:comment\ |en\ quoi\ )?(?:puis-je|pourrais-je)\ (?:\w+\ ){0,2}(?:\w+')?aider | (?:souhait|voul|voudri)\w*-vous\b
          | (?:y\ a-t-il|avez-vous|est-ce\ qu'il\ y\ a)\ (?:quelque\ chose\ )?(?:une?\ |d')?autre)
        | (?:pero\ |¿|o\ )*(?:(?:hay|tienes?)\ (?:algo\ m[áa]s|alguna\ otra)\b | (?:en\ qu[ée]\ |c[óo]mo\ |m[áa]s\ |te\ |le\ )*(?:puedo|podr[íi]a)\ (?:\w+\ )?ayudar
          | (?:te|le)\ gustar[íi]a\b | (?:quieres|deseas|desea)\b)
        | (?:mas\ |ou\ )?(?:(?:h[áa]|tem)\ (?:algo\ mais|alguma\ outra)\b | (?:em\ que\ |como\ |mais\ )*posso\ (?:\w+\ |\w+-lo\ )?ajud | (?:gostaria|deseja)\b)
        | (?:ma\ |o\ )?(?:(?:c'[èe]|hai|ha)\ altro\b | (?:come\ |in\ cosa\ )?posso\ (?:\w+\ )?aiutar | (?:vuoi|vuole|vorrebbe|desidera)\b)
        | (?:но\ |или\ )?(?:(?:могу\ ли\ я|чем)\ (?:\w+\ ){0,3}помочь\b | (?:хотите|хочешь)\b | есть\ ли\ (?:у\ вас\ )?(?:ещё|еще|друг|что-то\ (?:ещё|еще)))
        | هل\ (?:يمكنني\ مساعد|تريد|ترغب|لديك)
        | [^。！？?!]{0,12}(?:还有|還有|其他|别的|別的|帮您|帮你|幫您|幫你|您想|你想) | (?:他に|ほかに) | (?:다른|혹시|제가)\ [^?]*(?:도와|도움)
    )[^.!?。！？؟]*[?？؟]\W*\Z""",
    re.VERBOSE,
)
# Says that it declines the task itself, whatever it asks then.
_OF_THE_TASK = re.compile(
    r"""[^.!?;:]*\b(?:can(?:'t|not|\ not)|unable\ to|not\ able\ to|won't|will\ not)\ (?:\w+\ )?(?:
        (?:write|create|generate|form)\b[^.!?;:]*\bquestions?\b
        | (?:help|assist|comply|answer|fulfil?l|do)\b(?:\ you)?(?:\ with|\ on)?\ (?:that|this|it|your)(?:\ (?:request|question))?\s*[.!]
    )""",
    re.VERBOSE,
)
_ASKS = re.compile(r"(?:[?？؟]\W*|か。?)\Z")
# Declines a part, and says what there is: "I cannot give a date: the year is 1998."
_ANSWERS = re.compile(
    r"""
    \b(?:answer\ is|antwort\ (?:ist|lautet)|réponse\ est|respuesta\ es)(?=:?\ \w)(?!\ (?:not|to|unknown|unclear|nicht|unbekannt|pas|inconnue|no\b|desconocida))
    | \bdocuments?\ \d+(?:(?:,|,?\ and|\ to)\ \d+)*\ (?:only\ )?(?:give|state|say|report|show|list|name|suggest|indicate|date|put)s?\b
      (?!\ (?:no|nothing|neither|that\ no)\b)
    | \A[^.!?:]*:\ [^.!?:]*\b\d{2}
    """,
    re.VERBOSE,
)


def is_refusal(text: str) -> bool:
    """Return True if a text is nothing but the usual sentence that declines to answer.

    A text that asks in the end declines nothing, unless it only offers other help; one that goes on to
    answer does not either.

    >>> is_refusal("Es tut mir leid, dabei kann ich nicht helfen.")
    True
    """
    plain = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower().split())
    if len(plain) > _LENGTH:
        return False
    said = _without_offers(plain)
    asks = _ASKS.search(said) and not _OF_THE_TASK.match(said)
    if asks or _ANSWERS.search(said):
        return False
    if any(pattern.match(said) for pattern in (_ENGLISH, _DECLINES, _APOLOGISES)):
        return True
    return len(plain) <= _DENSE_LENGTH and _DENSE.match(said) is not None


def _without_offers(text: str) -> str:
    """Return a text without the offers it closes with ("Can I help with anything else?").

    >>> _without_offers("i can't do that. is there anything else?")
    "i can't do that."
    """
    while (offer := _OFFER.search(text)) is not None:
        text = text[: offer.start()]
    return text
