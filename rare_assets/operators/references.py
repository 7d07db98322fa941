"""Find questions that point at the text that they were made from, which nobody who searches can see.

A list of phrases misses some and takes others for what they are not, so it only warns: a judge of questions
decides.
"""

from __future__ import annotations

import re

_NOUN = r"(?:text|document|passage|article|excerpt|paragraph|abstract|snippet|extract)s?"
# What somebody found out, which is as unknown to who asks as the text.
_WORK = r"(?:study|studies|paper|report|research|experiment|trial|survey|review|analysis)"
_FOUND = r"(?:findings|results|evidence|information|data|details|facts)"
_GIVEN = r"(?:given|provided|above|following|preceding|present|supplied|accompanying|source|quoted)"
# "the text of the treaty" and "article 5" are things in the world, not the document at hand.
_END = r"\b(?!\s+(?:of|no|number|from|by|in|on|that|which|\d)\b)"
_SAYS = (
    r"(?:say|state|describe|mention|discusse?|explain|suggest|claim|argue|note|imply|implie|refer|report|outline"
    r"|provide|present|highlight|conclude|compare|contrast|list|show|give|define|find|found|indicate|propose"
    r"|recommend|emphasi[sz]e|examine|investigate|use)(?:s|d|ed)?|said"
)
_ENGLISH = re.compile(
    rf"""\A(?:the|this)\ {_NOUN}\ (?:also\ )?(?:{_SAYS})\b
    | \b(?:
        (?:according\ to|based\ (?:up)?on|as\ per|with\ reference\ to|in\ (?:the\ )?light\ of|given
          |(?:as\ )?(?:described|stated|mentioned|discussed|presented|provided|given|outlined|explained
            |noted|reported|shown|detailed|listed|referred\ to|found|contained)\ (?:in|by)
          |(?:information|details?|facts?|knowledge|evidence|data)\ (?:in|from|of))
        \ (?:the|this|these)\ (?:{_GIVEN}\ )?(?:{_NOUN}|authors?|researchers|{_WORK}|{_FOUND}){_END}
      | (?:the|this|these)\ {_GIVEN}\ (?:{_NOUN}|{_WORK}|{_FOUND}){_END}
      | (?:the\ )?{_NOUN}\ above
      | (?:this|these)\ (?:{_NOUN}|{_WORK}|findings|results){_END}
      | (?:in|from)\ (?:the|this)\ (?:text|passage|excerpt|abstract|snippet|article|{_WORK}){_END}
      | the\ (?:{_NOUN}|authors?|researchers|{_WORK})\ (?:also\ )?(?:{_SAYS})\b
      | (?:do|does|did|would)\ the\ (?:{_NOUN}|authors?|researchers|{_WORK}){_END}\ \w+
      | the\ (?:authors?|researchers|study|paper)['\u2019]s?\ \w+
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_OTHER = re.compile(
    r"""\b(?:
        # German
        (?:laut|gem\u00e4\u00df|nach|in)\ (?:dem|diesem|der|dieser)\ (?:vorliegenden\ )?(?:text|dokument|artikel|abschnitt|auszug|studie)\b(?!\ (?:des|der|von)\b)
      | im\ (?:vorliegenden\ )?(?:text|dokument|artikel|abschnitt|auszug)\b(?!\ (?:des|der|von)\b)
      | (?:der|dieser)\ (?:text|autor|artikel)\ (?:beschreibt|erw\u00e4hnt|sagt|nennt|erkl\u00e4rt|beschriebene)
        # French
      | (?:selon|d'apr\u00e8s|dans)\ (?:le|ce|cet|cette|l'|la)\ ?(?:texte|document|passage|article|extrait|\u00e9tude|auteur)\b(?!\ (?:de|du|des)\b)
        # Spanish
      | (?:seg\u00fan|en|de\ acuerdo\ con)\ (?:el|este|la|esta)\ (?:texto|documento|pasaje|art\u00edculo|extracto|estudio|autor)\b(?!\ (?:de|del)\b)
    )
    # Chinese and Japanese
    | (?:\u6839\u636e|\u636e|\u6309\u7167|\u4f9d\u636e)(?:\u672c|\u8be5|\u4e0a\u8ff0|\u4ee5\u4e0a|\u7ed9\u5b9a\u7684?)?(?:\u6587\u7ae0|\u6587\u672c|\u6587\u6863|\u6bb5\u843d|\u6750\u6599|\u8d44\u6599|\u6587\u4ef6|\u539f\u6587|\u7814\u7a76)
    | \u6587\u4e2d | \u672c\u6587 | \u4e0a\u6587
    | (?:\u3053\u306e|\u4e0a\u8a18\u306e|\u672c)(?:\u6587\u7ae0|\u6587\u66f8|\u8a18\u4e8b|\u8ad6\u6587|\u7814\u7a76) | \u8457\u8005\u306f
    """,
    re.VERBOSE | re.IGNORECASE,
)


def refers_to_document(question: str) -> bool:
    """Return True if a question points at the text that it was made from.

    >>> refers_to_document("According to the passage, why does salt melt ice?")
    True
    >>> refers_to_document("Why does salt melt ice, according to the text of the treaty?")
    False
    """
    plain = " ".join(question.split())
    return _ENGLISH.search(plain) is not None or _OTHER.search(plain) is not None
