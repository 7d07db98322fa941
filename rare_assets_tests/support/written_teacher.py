"""A teacher that answers about the sample corpus as a good one would, from what was written by hand.

For the pictures of the UI, where words strung together say nothing about what the pages are for.
"""

import json
from functools import cache
from typing import Any, NamedTuple

from rare_assets.corpus.source import CorpusSource
from rare_assets.operators.read_documents import read_documents
from rare_assets.settings import SAMPLE_CORPUS
from rare_assets_tests.support.written_questions import CLOSE, WRITTEN


class Said(NamedTuple):
    """What the teacher says of one document: a question with its scenario, and reasoning to it."""

    scenario: str
    question: str
    reasoning: str


_MORE = {
    "fuel-cell-losses": Said(
        "A bus depot finds that its fuel cells deliver a fifth less at full load in a dry spell, while "
        "at idle nothing has changed. Before it orders new catalyst, the workshop wants to be sure.",
        "Which part of a fuel cell's polarization curve has changed if only the voltage under load has "
        "dropped, and why would renewing the catalyst not bring it back?",
        "The catalyst sets how much extra potential the oxygen reaction takes, and that loss is seen "
        "at once, at the lowest currents. At idle nothing has changed, so the catalyst is well. What "
        "grows with the load is the straight part of the curve, whose slope is resistance, most of it "
        "in the membrane. A membrane conducts protons only while it is moist, and the air was dry. "
        "So the slope has become steeper, and water, not catalyst, puts it right.",
    ),
    "d-e838068b5109d7dc": Said(
        "A pharmacologist adds a substance that binds calcium in the fluid around two connected "
        "neurons. The first still fires, with impulses of full height; the second falls silent.",
        "Why does a lack of calcium silence the receiving neuron while impulses in the sending axon "
        "stay as they were, and would a stronger stimulus to the axon help?",
        "The impulse itself runs on sodium and potassium, so it comes to the end of the axon as "
        "before. There it should let calcium in, and only calcium makes the vesicles fuse with the "
        "membrane. Without it no transmitter gets into the cleft, and nothing shifts the potential of "
        "the next cell. A stronger stimulus makes no larger impulse, so it releases no more vesicles: "
        "it does not help.",
    ),
    "d-45faa7c6007e8ddb": Said(
        "A patient treated for high blood pressure late in life asks why he is out of breath when he "
        "climbs stairs, though his heart muscle is thicker than that of his healthy brother.",
        "Why does the thickening of the heart wall in response to high blood pressure help at first "
        "but become harmful in the long run?",
        "By Laplace's law the stress in the wall grows with pressure and radius and falls with the "
        "wall's thickness. Fibres laid side by side thicken it, so that each of them carries its old "
        "load again: that is the help. But a thick wall is stiff. Between two beats it gives way less, "
        "so the chamber fills poorly, most of all at a high pulse, and the muscle asks for more blood "
        "than its vessels bring. On the stairs both come together.",
    ),
    "rip-current": Said(
        "A lifeguard tells a family to stay away from the calm-looking strip between two areas of "
        "breakers, and if they are caught in it, to swim along the beach.",
        "Why can a calm strip between breaking waves be the most dangerous place of a beach, and why "
        "is swimming sideways safer than swimming towards the shore?",
        WRITTEN[[written.doc_id for written in WRITTEN].index("rip-current")].reasoning,
    ),
}


@cache
def _said() -> dict[str, Said]:
    """What is said of each document, by the document's text."""
    scenarios = {written.doc_id: written for written in WRITTEN}
    said = {
        close.doc_id: Said(
            scenarios[close.doc_id].question, close.question, scenarios[close.doc_id].reasoning
        )
        for close in CLOSE
        if close.doc_id in scenarios
    } | _MORE
    source = CorpusSource(str(SAMPLE_CORPUS), 1_000)
    return {
        text: said[doc_id]
        for shard in source.shards([])
        for doc_id, text in read_documents(source.read(shard), file=shard.file)
        .rows.select("doc_id", "text")
        .iter_rows()
        if doc_id in said
    }


def written_answer(body: dict[str, Any]) -> str | None:
    """The answer to a chat request about one of these documents; None about any other text."""
    prompt = body["messages"][-1]["content"]
    if "response_format" in body:
        said = next((said for text, said in _said().items() if text in prompt), None)
        return said and json.dumps({"question": said.question, "scenario": said.scenario})
    said = next((said for said in _said().values() if f"Question: {said.question}" in prompt), None)
    if said is None:
        return None
    conclusion = said.reasoning.rpartition(". ")[2]
    return f"{said.reasoning}\n\n<answer>{conclusion}</answer>"
