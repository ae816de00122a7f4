"""The line of progress: what it says, and that it stays out of the way of other output."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace

from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.cli import cli
from mig_spark.cli.base import _set_up_logging
from mig_spark.config import build_config
from mig_spark.lakehouse.counted import Counted, counted_so_far, counting
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


def test_the_line_tells_what_the_stage_counts_beside_the_tasks() -> None:
    watch = Watch("annotate", 100.0)
    rows = Counted(4_200, 60_000, "rows", "annotated", 110.0, before=200)
    # 4,000 rows in 80 s; the first tick may come long after the stage began
    assert watch.words(Tasks((7,), 35, 110), 190.0, doing="chunk 1 of 3", counted=rows) == (
        "annotate: chunk 1 of 3, 4,200 of 60,000 rows annotated (50 a second), 35 of 110 tasks, 1 min 30 s, about "
        "18 min 36 s left"
    )
    assert watch.words(None, 190.0, counted=rows) == (
        "annotate, 4,200 of 60,000 rows annotated (50 a second), 1 min 30 s, about 18 min 36 s left"
    )
    # the rows to go are told, not the tasks of this job
    assert watch.words(Tasks((7,), 70, 110), 190.0, counted=rows).endswith("1 min 30 s, about 18 min 36 s left")
    assert watch.words(None, 190.0, counted=replace(rows, done=60_000)).endswith("(748 a second), 1 min 30 s")


def test_counts_in_words_and_as_json() -> None:
    none = Counted(0, 504, "rows", "annotated", 10.0)
    assert none.words(70.0) == "0 of 504 rows annotated"
    assert none.to_dict(70.0) == {"done": 0, "of": 504, "unit": "rows"}
    paid = Counted(30, 504, "rows", "annotated", 10.0, requests=31, tokens=1_234_567, dollars=3.14159)
    assert paid.words(70.0) == ("30 of 504 rows annotated (0.5 a second), 31 requests, 1,234,567 tokens, $3.14")
    assert paid.to_dict(70.0) == {
        "done": 30, "of": 504, "unit": "rows", "a_second": 0.5, "seconds_left": 948, "requests": 31,
        "tokens": 1_234_567, "dollars": 3.1416,
    }  # fmt: skip
    unwell = replace(paid, retries=12)
    assert ", 31 requests (12 second tries), 1,234,567 tokens" in unwell.words(70.0)
    assert unwell.to_dict(70.0)["retries"] == 12
    assert replace(paid, dollars=0.01234).words(70.0).endswith(", $0.0123")
    # what an earlier run did says nothing of the speed of this one
    resumed = Counted(300, 1_000, "picks", "certified", 0.0, before=300)
    assert resumed.words(60.0) == "300 of 1,000 picks certified"
    assert json.loads(json.dumps(resumed.to_dict(60.0))) == {"done": 300, "of": 1000, "unit": "picks"}


def test_what_counts_is_what_the_block_says() -> None:
    assert counted_so_far() is None
    one, other = Counted(1, 2, "rows", "annotated", 0.0), Counted(5, 9, "picks", "taken", 0.0)
    with counting(lambda: one):
        assert counted_so_far() == one
        with counting(lambda: other):
            assert counted_so_far() == other
        assert counted_so_far() == one
    assert counted_so_far() is None


def config_of(**sections):
    return build_config({"pool": {"path": "p"}, "output": {"path": "o"}, **sections})


def test_picks_are_counted_round_by_round_of_those_that_there_are_to_be() -> None:
    from mig_spark.selection.extend import Former
    from mig_spark.selection.stage import _Taken

    saved: list[list[str]] = []
    taken = _Taken(config_of(select={"budget": 40}), None, resumed=0)
    on_round = taken.telling(saved.append)
    assert taken.counted() is None
    on_round(["a", "b", "c"])
    found = taken.counted()
    assert (found.done, found.total, found.unit, found.verb, found.before) == (3, 40, "picks", "certified", 0)
    assert saved == [["a", "b", "c"]]
    # another strategy certifies nothing
    other = _Taken(config_of(select={"budget": 40, "strategy": "k_center"}), None, resumed=2)
    other.telling(None)(["a", "b", "c"])
    assert (other.counted().verb, other.counted().before) == ("taken", 2)
    # an extended selection begins with what stays, and adds to that
    former = Former(3, list("abcdef"), list("abcd"), ())
    more = _Taken(config_of(select={"budget": 2}, mode="incremental", incremental={"add": 5}), former, resumed=0)
    more.telling(None)(list("abcdxy"))
    assert (more.counted().done, more.counted().total, more.counted().before) == (6, 9, 4)
    # without a budget there is nothing to count to
    cost = _Taken(config_of(select={"budget": None, "cost": {"budget": 9.0}}), None, resumed=0)
    cost.telling(None)(["a"])
    assert cost.counted() is None


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
        logging.getLogger("mig_spark.here").info("rows", extra={"progress": {"done": 3, "of": 7}})
        lines = capsys.readouterr().err.splitlines()
        found = json.loads(lines[0])
        assert len(lines) == 2
        assert "progress" not in found
        assert json.loads(lines[1])["progress"] == {"done": 3, "of": 7}
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
