"""What a stage has done so far, as it was counted: for the line of progress.

Spark's own counts (tasks of a job) say little of a stage of many jobs, or of one whose tasks each do thousands of rows.
A stage that knows more says so: `counting` while it runs, `Counted` for what it has done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mig_spark.lakehouse.runtime import has_spark_context

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True)
class Counted:
    """What has been done of what there is to do.

    Attributes:
        done, total: how many of how many; `done` is counted, never estimated.
        unit: what is counted, in the plural, such as `rows`.
        verb: what is done to them, such as `annotated`.
        began: when the first of them was begun, by `time.monotonic`.
        before: how many of `done` were done before that: they say nothing of the speed.
        requests, tokens: what endpoints were asked and used for it, in and out; None where nothing is paid.
        retries: those of `requests` that were sent again, which shows how well the endpoint is.
        dollars: what these tokens cost; None where no price is known.
    """

    done: int
    total: int
    unit: str
    verb: str
    began: float
    before: int = 0
    requests: int | None = None
    retries: int | None = None
    tokens: int | None = None
    dollars: float | None = None

    def rate(self, now: float) -> float | None:
        """How many a second so far, by `time.monotonic` now; None where nothing is done yet."""
        new, seconds = self.done - self.before, now - self.began
        return new / seconds if new > 0 and seconds > 0 else None

    def left(self, now: float) -> float | None:
        """Seconds to go at the rate so far, by `time.monotonic` now; None where there is no rate, or nothing to go."""
        rate = self.rate(now)
        return None if rate is None or self.done >= self.total else (self.total - self.done) / rate

    def words(self, now: float) -> str:
        """The counts in words, with the speed by `time.monotonic` now."""
        rate = self.rate(now)
        speed = "" if rate is None else f" ({rate:,.0f} a second)" if rate >= 10 else f" ({rate:.2g} a second)"
        text = f"{self.done:,} of {self.total:,} {self.unit} {self.verb}{speed}"
        if self.requests is not None:
            again = f" ({self.retries:,} second tries)" if self.retries else ""
            text += f", {self.requests:,} requests{again}, {self.tokens or 0:,} tokens"
        if self.dollars is not None:
            text += f", ${self.dollars:,.2f}" if self.dollars >= 1 else f", ${self.dollars:.4f}"
        return text

    def to_dict(self, now: float) -> dict[str, Any]:
        """The counts as JSON values, for a log of JSON lines; what is not known is left out."""
        rate, left = self.rate(now), self.left(now)
        known = {
            "done": self.done,
            "of": self.total,
            "unit": self.unit,
            "a_second": None if rate is None else float(f"{rate:.3g}"),
            "seconds_left": None if left is None else int(left),
            "requests": self.requests,
            "retries": self.retries,
            "tokens": self.tokens,
            "dollars": None if self.dollars is None else round(self.dollars, 4),
        }
        return {name: value for name, value in known.items() if value is not None}


#: What counts for the stage under way.
_COUNTING: list[Callable[[], Counted | None] | None] = [None]


@contextlib.contextmanager
def counting(count: Callable[[], Counted | None]) -> Iterator[None]:
    """Within a `with` block, `counted_so_far` is what `count` gives.

    Args:
        count: called from another thread every now and then; it only reads.
    """
    before = _COUNTING[0]
    _COUNTING[0] = count
    try:
        yield
    finally:
        _COUNTING[0] = before


def counted_so_far() -> Counted | None:
    """What the stage under way has done; None where it counts nothing."""
    count = _COUNTING[0]
    return None if count is None else count()


class TaskCounts:
    """Numbers that tasks report as they go. They come to the driver as each task ends; a task that is tried again
    counts once.

    Args:
        spark: the session; without a context of its own (Spark Connect) nothing is reported.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._accumulator: Any = None
        if has_spark_context(spark):
            self._accumulator = spark.sparkContext.accumulator({}, cast(Any, _ByTask()))

    @property
    def report(self) -> Callable[[int, Sequence[float]], None] | None:
        """For executors: call it with the task's partition and its sums so far; None where nothing is reported."""
        return None if self._accumulator is None else _Report(self._accumulator)

    def sums(self, numbers: int) -> list[float]:
        """The sums over all tasks that have ended, of so many numbers."""
        told = [] if self._accumulator is None else list(self._accumulator.value.values())
        return [sum(one[k] for one in told) for k in range(numbers)]


@dataclass(frozen=True)
class _Report:
    """Travels to executors with the accumulator in it."""

    accumulator: Any

    def __call__(self, partition: int, sums: Sequence[float]) -> None:
        self.accumulator.add({partition: tuple(sums)})


class _ByTask:
    """How reports are joined: of each task the last one counts. (pyspark asks for these two methods.)"""

    def zero(self, value: dict[int, Any]) -> dict[int, Any]:  # noqa: ARG002 - pyspark's own signature
        """Nothing reported."""
        return {}

    def addInPlace(self, value1: dict[int, Any], value2: dict[int, Any]) -> dict[int, Any]:  # noqa: N802 - pyspark's
        """Both; where both have a task, what the second says of it."""
        value1.update(value2)
        return value1
