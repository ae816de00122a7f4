"""The line of progress: what it says, and that it stays out of the way of other output."""

from __future__ import annotations

import io
import json
import logging

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.cli import cli
from mig_spark.cli.base import _set_up_logging
from mig_spark.lakehouse.live_line import LINE, LiveLine
from mig_spark.lakehouse.progress import Tasks, Watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_counts_tasks_and_tells_the_time_left() -> None:
    watch = Watch("annotate", 100.0)
    assert watch.words(None, 103.0) == "annotate, 3 s"
    assert watch.words(Tasks((7,), 10, 110), 110.0, doing="chunk 1 of 3") == (
        "annotate: chunk 1 of 3, 10 of 110 tasks, 10 s"
    )
    # 25 tasks in 50 s, so the other 75 take 150 s
    told = watch.words(Tasks((7,), 35, 110), 160.0)
    assert told == "annotate, 35 of 110 tasks, 60 s, about 2 min 30 s left of this step"
    # another job begins anew
    assert watch.words(Tasks((8,), 5, 10), 200.0) == "annotate, 5 of 10 tasks, 1 min 40 s"
    assert watch.words(Tasks((8,), 10, 10), 210.0, bar=True) == f"annotate, [{'#' * 20}] 10 of 10 tasks, 1 min 50 s"


@given(
    seen=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 50), st.floats(0, 1e5)), max_size=8),
    bar=st.booleans(),
)
def test_whatever_is_counted_is_one_line(seen: list[tuple[int, int, int, float]], bar: bool) -> None:
    watch, now = Watch("select", 0.0), 0.0
    for job, done, more, passed in seen:
        now += passed
        told = watch.words(Tasks((job,), done, done + more), now, bar=bar)
        assert "\n" not in told
        assert told.startswith("select, ")
        assert f"{done:,} of {done + more:,} tasks" in told or done + more == 0


def test_a_terminal_has_one_line_that_is_erased_before_others() -> None:
    out = Terminal()
    line = LiveLine(out)
    assert line.is_live
    line.erase()
    assert out.getvalue() == ""
    line.show("ingest, 3 s")
    line.show("ingest, 4 s")
    line.erase()
    line.erase()
    assert out.getvalue() == "\r\x1b[Kingest, 3 s\r\x1b[Kingest, 4 s\r\x1b[K"
    assert not LiveLine(io.StringIO()).is_live


def test_a_log_of_json_has_an_object_a_line(capsys, monkeypatch) -> None:
    root, live = logging.getLogger("mig_spark"), LINE.is_live
    before = root.handlers[:], root.level, root.propagate, logging.getLogger().handlers[:]
    try:
        _set_up_logging(logging.INFO, as_json=True)
        logging.getLogger("mig_spark.here").info("ein %s\nzwei", "ä")
        logging.getLogger("mig_spark.here").debug("no")
        lines = capsys.readouterr().err.splitlines()
        found = json.loads(lines[0])
        assert len(lines) == 1
        assert (found["message"], found["level"], found["logger"]) == ("ein ä\nzwei", "INFO", "mig_spark.here")
        assert found["time"].endswith("Z")
        assert not LINE.is_live
    finally:
        root.handlers[:], root.level, root.propagate = before[:3]
        logging.getLogger().handlers[:] = before[3]
        LINE.is_live = live


def test_the_format_can_be_set_by_the_environment() -> None:
    done = CliRunner().invoke(cli, ["config"], env={"MIG_SPARK_LOG_FORMAT": "yaml"})
    assert done.exit_code == 2
    assert "'yaml' is not one of 'text', 'json'" in done.output
