"""The export formats, one module each: a new one is a module with a `FORMAT`, named here."""

from rare_assets.exports.format import Format
from rare_assets.exports.formats import (
    beir,
    cross_encoder,
    dataflow,
    flag_embedding,
    llama_factory,
    messages,
    prompt_completion,
    rare,
    reasonir,
    sentence_transformers,
    tevatron,
    verl,
)

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (
        sentence_transformers,
        cross_encoder,
        flag_embedding,
        tevatron,
        reasonir,
        messages,
        prompt_completion,
        llama_factory,
        verl,
        rare,
        dataflow,
        beir,
    )
}
