import pytest

from rare_assets.operators.fitting import foreseen
from rare_assets_tests.support.doubles import documents

LONG = "Brine freezes at a lower temperature. " * 253  # 1,600 words, 9,614 bytes


@pytest.mark.parametrize(
    ("window", "num_neg", "fits"),
    [(8_192, 3, False), (8_192, 2, True), (16_384, 3, True), (None, 3, True)],
)
def test_what_reasoning_will_not_fit_is_said_before_questions_are_paid_for(window, num_neg, fits):
    docs = documents(*({"doc_id": f"d{n}", "text": LONG} for n in range(3)))
    said = foreseen(docs, window, num_neg)
    assert (said is None) == fits
    if said is not None:
        assert "a document and 3 negatives take about 9,8" in said
        assert "max_context_tokens" in said
        assert "num_neg" in said
