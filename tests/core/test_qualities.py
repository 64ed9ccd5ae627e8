"""What is said of each quality."""

from deployments.core.qualities import Reuse, describe, draft_notice, fast_notice
from deployments.core.spec import resolve
from tests.core.test_spec import card, request


def test_each_quality_that_a_model_has_is_described() -> None:
    """With the model's own numbers."""
    assert list(describe(card())) == ["exact"]
    told = describe(card(fast_threshold=0.1, draft_steps=8))
    assert list(told) == ["exact", "fast", "draft"]
    assert "20 steps" in told["exact"]
    assert "threshold 0.1" in told["fast"]
    assert told["draft"] == "8 steps instead of 20: quick and rough."
    distilled = card(draft_steps=8, draft_checkpoint="fast-mochi")
    assert describe(distilled)["draft"] == "8 steps of fast-mochi: quick and rough."


def test_a_job_says_what_its_quality_changed() -> None:
    """In numbers."""
    quick = card(fast_threshold=0.1, draft_steps=8)
    made = Reuse()
    made.add(40, 11)
    made.add(40, 20)
    notice = fast_notice(resolve(request(quality="fast"), quick), made)
    assert notice == "Fast: 31 of 80 passes reused most of the last one (threshold 0.1)."
    asked = request(quality="draft", num_inference_steps=6)
    assert draft_notice(resolve(asked, quick), quick) == "Draft: 6 steps instead of 20."
