"""Names of runs."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.errors import ConfigError
from mig_spark.lakehouse.runs import check_run_id, new_run_id
from mig_spark.pipeline import run_pipeline


@given(st.text(max_size=140) | st.text("./\\ a-_'`\n", max_size=6))
def test_a_name_is_one_part_of_a_path_or_refused(name):
    try:
        check_run_id(name)
    except ConfigError:
        return
    root = PurePosixPath("/spill")
    assert (root / name).parent == root
    assert (root / name).parts == ("/", "spill", name)
    assert name.strip(".")
    assert name.isascii()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\n", "scheduled__2026-01-01T00:00:00", "x" * 129, 7])
def test_what_cannot_be_a_name_is_refused_before_anything_starts(name):
    with pytest.raises(ConfigError, match=r"run id .* give 1 to 128 of the letters"):
        check_run_id(name)
    with pytest.raises(ConfigError, match="run id"):
        run_pipeline(None, None, run_id=name)


def test_names_of_schedulers():
    for name in ("nightly-1", "77-1", "RUN_NAME", "manual__2026-01-01.a", "x" * 128, new_run_id()):
        assert check_run_id(name) == name
