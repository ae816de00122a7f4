"""Which rows of a block the driver has: few as places, many as bits, and the same answer either way."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.kernels.selection.offers import Sent


@given(st.integers(1, 300), st.lists(st.lists(st.integers(0, 299), max_size=40), max_size=4), st.integers(0, 300))
def test_the_rows_that_came_are_known_whatever_their_number(rows, rounds, first):
    sent, came = Sent(), set()
    for places in rounds:
        here = sorted({p for p in places if p < rows} - came)
        sent.add(7, rows, np.array(here, np.int64))
        came |= set(here)
    assert np.flatnonzero(sent.mask(7, rows)).tolist() == sorted(came)
    assert not sent.mask(8, rows).any()
    # of the first rows of a block alone
    part = min(first, rows)
    assert np.flatnonzero(sent.mask(7, part)).tolist() == sorted(p for p in came if p < part)


def test_no_block_takes_more_than_a_bit_a_row():
    sent = Sent()
    for count in (0, 10, 300, 400, 10_000):
        sent.add(count, 10_000, np.arange(count))
        assert sent.rows[count].nbytes <= 1250
    assert sent.rows[10].nbytes == 40
