"""What the health check refuses, of figures; tests/spark/test_annotate.py measures them."""

from __future__ import annotations

import pytest

from mig_spark.annotation.health import Health, check_health
from mig_spark.annotation.scorers.heuristic import HeuristicScorer
from mig_spark.errors import AnnotationError
from mig_spark.kernels.annotation.heuristics import score_messages


def health(low: float, high: float) -> Health:
    return Health(1000, 0, 3.0, 4, 0, score={"p01": low, "p99": high})


def test_equal_scores_are_refused_unless_they_mean_that_there_are_no_faults() -> None:
    with pytest.raises(AnnotationError, match="98% of the rows lie between 6 and 6"):
        check_health(health(6.0, 6.0), allow_degenerate=False)
    check_health(health(6.0, 6.0), allow_degenerate=False, may_be_equal=True)
    check_health(health(6.0, 6.0), allow_degenerate=True)
    check_health(health(2.0, 6.0), allow_degenerate=False)


def test_the_heuristic_scorer_says_which_scores_mean_so() -> None:
    sound = HeuristicScorer().annotator(1, None).sound_above
    assert sound is not None
    worst = score_messages([{"role": "user", "content": "Hello?"}])[0]
    good = score_messages(
        [{"role": "user", "content": "Why is the sky blue?"},
         {"role": "assistant", "content": "Because air scatters short waves of light more than long ones."}]
    )[0]  # fmt: skip
    assert worst <= sound < good
