from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mig_spark.kernels.annotation.rank_correlation import rank_correlation

few = st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(few, st.one_of(few, st.floats(-1e9, 1e9))), min_size=2, max_size=40))
def test_it_is_spearmans(pairs: list[tuple[float, float]]) -> None:
    a, b = np.array(pairs).T
    found = rank_correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)


def test_nothing_is_said_of_too_few_rows() -> None:
    assert rank_correlation(np.zeros(0), np.zeros(0)) is None
    assert rank_correlation(np.ones(1), np.ones(1)) is None
