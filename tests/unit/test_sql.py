"""Names, texts and intervals in SQL."""

from __future__ import annotations

import pytest

from mig_spark.lakehouse.sql import KEPT, days_kept, keep_for, literal, quote


@pytest.mark.parametrize(
    ("interval", "days"),
    [
        ("interval 30 days", 30),
        ("INTERVAL 1 DAY", 1),
        ("12 hours", 0.5),
        ("interval 1 week 12 hours", 7.5),
        ("interval 2 months", 60),
        ("interval 1 year", 365),
        ("interval 36 minutes", 0.025),
    ],
)
def test_an_interval_in_days(interval, days):
    assert days_kept(dict.fromkeys(KEPT, interval)) == dict.fromkeys(KEPT, pytest.approx(days))


def test_what_delta_keeps_where_nothing_is_said():
    assert sorted(days_kept({}).values()) == [7, 30]
    assert set(days_kept(keep_for(45)).values()) == {45}


def test_names_and_texts_end_where_they_should():
    assert quote("a`b.c") == "`a``b.c`"
    assert literal("it's a \\") == "'it\\'s a \\\\'"
