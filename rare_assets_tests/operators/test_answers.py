# ruff: noqa: RUF001

import pytest

from rare_assets.operators.answers import require_whole
from rare_assets.operators.refusals import is_refusal
from rare_assets.teacher.interface import Unusable
from rare_assets_tests.support.doubles import answer


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\N{RIGHT SINGLE QUOTATION MARK}m sorry, but I cannot assist with this request.",
        "Sorry, I can't answer.",
        "I am really sorry, I am unable to do this.",
        "I apologize, but I cannot provide that information.",
        "I cannot fulfill this request.",
        "Unfortunately, I can't help.",
        "I'm unable to discuss this topic.",
        "As an AI language model, I have no opinion.",
        "  \n**I will not answer** that.",
        "Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.",
        "Leider kann ich diese Anfrage nicht beantworten.",
        "Tut mir sehr leid, das darf ich nicht.",
        "Ich kann dazu keine Informationen bereitstellen.",
        "Als KI-Sprachmodell habe ich keine Meinung dazu.",
        "Je suis désolé, mais je ne peux pas vous aider avec cette demande.",
        "Désolée, je ne peux pas répondre à cela.",
        "Malheureusement, je ne suis pas en mesure de le faire. Je ne peux pas répondre.",
        "En tant qu'IA, je n'ai pas d'avis.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Lo siento, no puedo.",
        "No puedo proporcionar esa información.",
        "Como modelo de lenguaje, no tengo opiniones.",
        "Desculpe, mas não posso ajudar com isso.",
        "Mi dispiace, ma non posso aiutarti.",
        "Извините, я не могу помочь.",
        "\u5f88\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u56de\u7b54\u8fd9\u4e2a\u95ee\u9898\u3002",
        "\u5bf9\u4e0d\u8d77\uff0c\u6211\u8fd8\u6ca1\u6709\u5b66\u4f1a\u5982\u4f55\u601d\u8003\u8fd9\u7c7b\u95ee\u9898\u3002",
        "\u6211\u65e0\u6cd5\u63d0\u4f9b\u8be5\u4fe1\u606f\u3002",
        "\u4f5c\u4e3a\u4e00\u4e2a\u4eba\u5de5\u667a\u80fd\u52a9\u624b\uff0c\u6211\u4e0d\u80fd\u8ba8\u8bba\u8fd9\u4e2a\u3002",
        "\u7533\u3057\u8a33\u3042\u308a\u307e\u305b\u3093\u304c\u3001\u305d\u306e\u8cea\u554f\u306b\u306f\u304a\u7b54\u3048\u3067\u304d\u307e\u305b\u3093\u3002",
        "\u3054\u8cea\u554f\u306b\u306f\u304a\u7b54\u3048\u3067\u304d\u307e\u305b\u3093\u3002",
        "\uc8c4\uc1a1\ud569\ub2c8\ub2e4. \ub3c4\uc640\ub4dc\ub9b4 \uc218 \uc5c6\uc2b5\ub2c8\ub2e4.",
        "I'm sorry, I can't help with that. Is there something else I can help with?",
        "I'm sorry, but I can't assist with that. What else is on your mind?",
        "I cannot provide that — would you like a summary instead?",
        "I can't do that. Could you rephrase it? Can I help you with anything else?",
        "I cannot answer that: document 1 is about salt.",
        "I cannot answer; the answer is not in the documents.",
        "I cannot answer: documents 1 and 3 give no date.",
        "I cannot provide what the answer is.",
        "As an AI, I have no opinion.",
        "As an AI assistant made by a company I cannot say.",
        "Als KI kann ich das nicht beurteilen.",
        "Dabei kann ich nicht helfen. Kann ich Ihnen sonst noch helfen?",
        "Dazu kann ich keine Auskunft bereitstellen. Möchten Sie etwas anderes wissen?",
        "Je ne peux pas répondre à cela. Puis-je vous aider pour autre chose ?",
        "No puedo ayudar con eso. ¿Hay algo más en lo que pueda ayudarte?",
        "Lo siento, no puedo ayudar con eso. ¿En qué más puedo ayudarte?",
        "Desculpe, não posso ajudar com isso. Posso ajudar com outra coisa?",
        "Mi dispiace, non posso aiutarti. Posso aiutarti con altro?",
        "Извините, я не могу помочь. Могу ли я помочь чем-то ещё?",
        "Как ИИ, я не имею мнения.",
        "抱歉，我无法回答。还有其他问题吗？",
    ],
)
def test_a_refusal_is_recognised(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "The core problem is whether salt lowers the freezing point.",
        "I'm sorry for the driver: the salt ran out. It melts ice by forming brine.",
        "I can answer this from the second document.",
        "Sorry sights aside, the bridge held.",
        "Leider springt mein Motor bei Frost nicht an. Woran kann das liegen?",
        "Es tut mir leid, ich kann den Motor nicht starten: was fehlt ihm?",
        "Als Kind lernte er das Eislaufen.",
        "Malheureusement, la route gèle quand même : pourquoi ?",
        "Je ne peux pas démarrer le moteur : que faire ?",
        "No puedo arrancar el motor. ¿Por qué?",
        "Como medida previa se echa sal.",
        "\u6c34\u65e0\u6cd5\u7ed3\u51b0\uff0c\u56e0\u4e3a\u76d0\u964d\u4f4e\u4e86\u51b0\u70b9\u3002",
        "\u6211\u4e0d\u80fd\u542f\u52a8\u53d1\u52a8\u673a\uff0c\u4e3a\u4ec0\u4e48\uff1f",
        "\u6c34\u306f\u51cd\u308b\u3053\u3068\u304c\u3067\u304d\u307e\u305b\u3093\u3002",
        "I cannot answer this at once. " + "First, look at the phase diagram of brine. " * 10,
        "",
        "As an AI engineer, which metric should I use to compare two classifiers on rare events?",
        "As an AI engineer I would take the recall.",
        "As an AI system grows, why does its loss fall as a power law?",
        "As an AI model grows, its loss falls as a power law.",
        "I am unable to start my car in winter; which property of the battery explains it?",
        "I cannot create a second partition on this disk; what limits it?",
        "I cannot create a second partition on this disk. What can I do?",
        "I'm sorry, I can't create a partition: what limits it?",
        "Als KI-Ingenieur, welche Metrik soll ich nehmen?",
        "Als KI-Ingenieur würde ich die Trefferquote nehmen.",
        "Ich kann meinen Antrag nicht erstellen, woran liegt das?",
        "Ich kann meinen Antrag nicht erstellen. Wie kann ich das beheben?",
        "Je ne peux pas créer de partition : pourquoi ?",
        "En tant qu'assistante sociale, je tiens le dossier.",
        "No puedo crear una partición; ¿qué la limita?",
        "Как ИИ-инженер я выбрал бы полноту.",
        "Я не могу создать раздел: почему?",
        "作为AI工程师，我会选择召回率。",
        "I cannot provide an exact date: documents 1 and 3 give only the year 1998, so the safest answer is 1998.",
        "I cannot provide an exact date, but documents 1 and 3 give the spring.",
        "I can't answer for the second trial, but the answer is yes for the first.",
        "I cannot provide a date: the year was 1998.",
    ],
)
def test_an_answer_is_not_taken_for_a_refusal(text):
    assert not is_refusal(text)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer("", refusal="not allowed"), "refused"),
        (answer("Half of", refusal="not allowed"), "refused"),
        (answer("Half of", finish_reason="content_filter"), "content_filter"),
        (answer("Half of", finish_reason="length"), "cut"),
        (answer("Half of", finish_reason="error"), "cut"),
        (answer("Half of", finish_reason="SAFETY"), "content_filter"),
        (answer(" \n"), "empty"),
        (answer("", thinking="A chain and no answer"), "empty"),
        (answer("I can't help with that."), "refused"),
        (answer("<think>Brine"), "cut"),
        (answer("a" * 4_000), "degenerate"),
        (answer("It melts.", thinking="Brine is what melts it. " * 300), "degenerate"),
    ],
)
def test_what_is_not_a_whole_answer_is_unusable(given, reason):
    with pytest.raises(Unusable) as caught:
        require_whole(given)
    assert caught.value.reason == reason


def test_a_whole_answer_passes():
    for word in ("stop", "end_turn", "EOS"):
        require_whole(answer("Salt makes brine.", finish_reason=word))
