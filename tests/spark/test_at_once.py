"""Several questions to Spark at a time: each with its answer in its place, and one that fails."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from mig_spark.errors import InputError
from mig_spark.lakehouse.runtime import at_once, describe_job, stopped_with_its_jobs


def test_answers_come_in_the_order_of_the_questions(spark: SparkSession) -> None:
    describe_job(spark, "report", "many things")
    both = threading.Barrier(2, timeout=60)

    def count(rows: int) -> Callable[[], tuple[int, str | None]]:
        def ask() -> tuple[int, str | None]:
            if rows < 3:
                both.wait()  # passes only where two run at a time
            return spark.range(rows).count(), spark.sparkContext.getLocalProperty("spark.job.description")

        return ask

    assert at_once(spark, *(count(rows) for rows in (1, 2, 3, 4))) == [
        (rows, "mig-spark report: many things") for rows in (1, 2, 3, 4)
    ]


def test_the_first_that_fails_is_raised_and_what_waits_is_not_begun(spark: SparkSession) -> None:
    first, begun = threading.Event(), []

    def fail(message: str) -> Callable[[], None]:
        def ask() -> None:
            if message == "the first":
                first.wait(60)
            else:
                first.set()
            raise InputError(message)

        return ask

    def ask_last(number: int) -> Callable[[], None]:
        def ask() -> None:
            begun.append(number)
            first.wait(60)
            threading.Event().wait(0.5)

        return ask

    with pytest.raises(InputError, match="the first"):
        at_once(spark, fail("the first"), fail("the second"), *(ask_last(k) for k in range(40)))
    assert len(begun) < 40


def test_what_spark_notes_of_one_question_is_not_seen_by_another(spark: SparkSession) -> None:
    both = threading.Barrier(2, timeout=60)

    def ask(name: str) -> Callable[[], str | None]:
        def ask() -> str | None:
            spark.sparkContext.setLocalProperty("spark.job.description", name)
            both.wait()
            return spark.sparkContext.getLocalProperty("spark.job.description")

        return ask

    assert at_once(spark, ask("one"), ask("two")) == ["one", "two"]


def test_what_is_stopped_by_hand_is_given_up(spark: SparkSession) -> None:
    both, steps = threading.Barrier(2, timeout=60), list[str]()

    def endless() -> None:
        both.wait()
        try:
            spark.range(10**15).selectExpr("sum(id % 7)").collect()
            steps.append("went on")
        finally:
            steps.append("ended")

    def stop() -> None:
        both.wait()
        raise KeyboardInterrupt  # perhaps before the query is asked

    with pytest.raises(KeyboardInterrupt):
        at_once(spark, stop, endless)
    assert steps == ["ended"]
    assert spark.range(3).count() == 3, "nothing else is given up"


def test_one_who_stops_it_by_hand_does_not_wait_for_ever(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mig_spark.lakehouse.runtime._PATIENCE", 0.5)
    go_on = threading.Event()
    answered: list[bool] = []

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        at_once(spark, stop, lambda: answered.append(go_on.wait(60)))
    assert not answered
    go_on.set()


def test_the_jobs_of_a_run_that_is_stopped_end_with_it(spark: SparkSession, tmp_path: Path) -> None:
    """Ctrl-C in the main thread, which waits for a job that would take two minutes."""
    sign_of_life = tmp_path / "tasks"
    sign_of_life.touch()

    def slow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for _ in range(240):
                with sign_of_life.open("a") as file:
                    file.write(".")
                time.sleep(0.5)
            yield batch

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    def size() -> int:
        return sign_of_life.stat().st_size

    def send_when_it_runs() -> None:
        while not size():
            time.sleep(0.1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        threading.Thread(target=send_when_it_runs, daemon=True).start()
        with pytest.raises(KeyboardInterrupt), stopped_with_its_jobs(spark):
            spark.range(2, numPartitions=2).mapInArrow(slow, "id long").count()
    finally:
        signal.signal(signal.SIGUSR1, before)
    deadline, seen = time.monotonic() + 60, -1
    while seen != size() and time.monotonic() < deadline:  # Spark gives a Python worker two seconds to end by itself
        seen = size()
        time.sleep(3)
    assert seen == size()
    assert spark.range(3).count() == 3
