"""Where a stage is, while it runs: what it has done as it counts it itself, where it does (`lakehouse/counted.py`), and
the tasks of the Spark jobs under way, as Spark counts them.

On a terminal one line that is written over and over; in a log a line a minute, whose numbers a log of JSON lines has
once more as an object `progress`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.lakehouse.counted import Counted, counted_so_far
from mig_spark.lakehouse.durations import in_words
from mig_spark.lakehouse.live_line import LINE, LiveLine
from mig_spark.lakehouse.model_workers import JOB_GROUP
from mig_spark.lakehouse.runtime import has_spark_context, job_under_way
from mig_spark.lakehouse.spark_failures import gateway_errors

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)

#: Seconds between two lines: on a terminal, in a log.
LIVE_SECONDS, LOG_SECONDS = 0.5, 60.0
_BAR = 20


@dataclass(frozen=True)
class Tasks:
    """Tasks of the jobs under way: `jobs` are their numbers."""

    jobs: tuple[int, ...]
    done: int
    total: int


def tasks_under_way(context: SparkContext) -> Tasks | None:
    """How many tasks the Spark jobs that run now have, and how many of them are done; None if no job runs. The job
    that only starts Python workers early (`model_workers.JOB_GROUP`) is left out."""
    tracker = context.statusTracker()
    jobs = sorted({*tracker.getActiveJobsIds()} - {*tracker.getJobIdsForGroup(JOB_GROUP)})
    done = total = 0
    for job in jobs:
        info = tracker.getJobInfo(job)
        for stage in info.stageIds if info is not None else ():
            found = tracker.getStageInfo(stage)
            if found is not None:
                done, total = done + found.numCompletedTasks, total + found.numTasks
    return Tasks(tuple(jobs), done, total) if jobs else None


class Watch:
    """How far the jobs under way have come, in words.

    Args:
        stage: what the line begins with.
        now: seconds, from any start.
    """

    def __init__(self, stage: str, now: float) -> None:
        self._stage, self._began = stage, now
        self._jobs: tuple[int, ...] = ()
        self._job_began, self._job_done = now, 0

    def words(
        self, tasks: Tasks | None, now: float, *, doing: str = "", bar: bool = False, counted: Counted | None = None
    ) -> str:
        """The line at a moment.

        Args:
            tasks: of the jobs under way.
            now: seconds, from the same start; with `counted`, by `time.monotonic`.
            doing: what the jobs are for.
            bar: with a bar of characters.
            counted: what the stage counts itself.
        """
        spent = in_words(int(now - self._began))
        what = f"{self._stage}: {doing}" if doing else self._stage
        left = None
        if counted is not None:
            what += f", {counted.words(now)}"
            left = counted.left(now)
        # the rows of the stage tell more than the tasks of one of its jobs
        to_go = "" if left is None else f", about {in_words(int(left))} left"
        if tasks is None or not tasks.total:
            return f"{what}, {spent}{to_go}"
        if tasks.jobs != self._jobs:
            self._jobs, self._job_began, self._job_done = tasks.jobs, now, tasks.done
        share = tasks.done / tasks.total
        drawn = f"[{'#' * int(share * _BAR):<{_BAR}}] " if bar else ""
        line = f"{what}, {drawn}{tasks.done:,} of {tasks.total:,} tasks, {spent}"
        moved = tasks.done - self._job_done
        if not to_go and moved > 0 and tasks.done < tasks.total:
            of_step = (tasks.total - tasks.done) * (now - self._job_began) / moved
            to_go = f", about {in_words(int(of_step))} left of this step"
        return line + to_go


@contextlib.contextmanager
def progress(
    spark: SparkSession, stage: str, *, line: LiveLine | None = None, every: float | None = None
) -> Iterator[None]:
    """Tell where a stage is while the block runs.

    Args:
        spark: the session; without a context of its own (Spark Connect) tasks are not told.
        stage: its name.
        line: the terminal's line; LINE by default.
        every: seconds between two lines; by default LIVE_SECONDS or LOG_SECONDS.
    """
    line = LINE if line is None else line
    if not logger.isEnabledFor(logging.INFO):
        yield
        return
    every = every or (LIVE_SECONDS if line.is_live else LOG_SECONDS)

    def tell(text: str, numbers: dict[str, Any]) -> None:
        if line.is_live:
            line.show(text)
        else:
            logger.info("%s", text, extra={"progress": numbers})

    ended = threading.Event()
    thread = threading.Thread(
        target=_follow,
        args=(spark.sparkContext if has_spark_context(spark) else None, stage, ended, every, tell, line.is_live),
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        line.erase()


def _follow(
    context: SparkContext | None,
    stage: str,
    ended: threading.Event,
    every: float,
    tell: Callable[[str, dict[str, Any]], None],
    bar: bool,
) -> None:
    broken: tuple[type[Exception], ...] = (*gateway_errors(), OSError, AttributeError)
    began = time.monotonic()
    watch = Watch(stage, began)
    while not ended.wait(every):
        try:
            tasks = None if context is None else tasks_under_way(context)
        except broken as e:
            # a JVM that ended, or a session that was stopped, is told by whoever waits for it
            logger.debug("no progress to tell: %s", type(e).__name__)
            return
        if not ended.is_set():
            now, counted = time.monotonic(), counted_so_far()
            numbers: dict[str, Any] = {"stage": stage, "seconds": int(now - began)}
            if tasks is not None:
                numbers |= {"tasks_done": tasks.done, "tasks": tasks.total}
            if counted is not None:
                numbers |= counted.to_dict(now)
            tell(watch.words(tasks, now, doing=job_under_way(), bar=bar, counted=counted), numbers)
