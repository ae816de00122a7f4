"""The runs on record: what `mig-spark runs` lists, and all that is known of one for `mig-spark show`."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from mig_spark.config import Config, unlike_defaults
from mig_spark.contracts import FINISHED, RUNS
from mig_spark.curation.stages import PAID, UNFINISHED, flat_counts
from mig_spark.errors import InputError
from mig_spark.lakehouse.tables import Store


@dataclass(frozen=True)
class PastRun:
    """One run on record.

    Attributes:
        run_id, status, command, error: as in the table `runs`.
        started_at, ended_at: UTC; with the report, which is made after the run is on record.
        seconds: wall seconds by stage; of stages that were skipped, 0.
        counts: rows after each step, as the summary has them: read, pool, annotated, labels, selected, ...; `moved`
            where the run extended a selection or replaced one: how many rows it had before, kept, entered, left, and
            what for.
        certificate, config, versions, inputs: as in `runs`, decoded; secrets are masked there already.
        paid: what endpoints were asked when this run annotated: `requests`, `prompt_tokens`, `completion_tokens`, and
            `dollars` where a price is known; empty where it asked none. Of a run that failed then, what was asked by
            tasks that had ended.
    """

    run_id: str
    status: str
    command: str
    error: str | None
    started_at: dt.datetime
    ended_at: dt.datetime | None
    seconds: dict[str, float]
    counts: dict[str, Any]
    certificate: dict[str, Any]
    config: dict[str, Any]
    versions: dict[str, Any]
    inputs: Any
    paid: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        ended = None if self.ended_at is None else self.ended_at.isoformat()
        return {**self.__dict__, "started_at": self.started_at.isoformat(), "ended_at": ended}


def past_runs(
    store: Store, last: int | None = None, *, run_id: str | None = None, price: tuple[float, float] | None = None
) -> list[PastRun]:
    """Runs on record, newest first.

    Args:
        store: the output.
        last: how many; None: all.
        run_id: only records of this run; a run that was tried again under its id has several.
        price: dollars for a million tokens in and out, see `price_of`; None: no money is told.

    Raises:
        InputError: no run is on record, or none of this id.
    """
    from pyspark.sql import functions as sf

    if not store.exists(RUNS):
        raise InputError(f"no run is on record at {store.location(RUNS)}: is this the output of a run?")
    rows = store.read(RUNS).orderBy(sf.col("started_at").desc())
    if run_id is not None:
        rows = rows.where(sf.col("run_id") == run_id)
    lines = [row.asDict() for row in (rows if last is None else rows.limit(last)).collect()]
    done = _done(store, [line["run_id"] for line in lines])
    found = [_past_run(line, done.get(line["run_id"], _Done()), price) for line in lines]
    if not found and run_id is not None:
        raise InputError(f"no run {run_id!r} is on record: `mig-spark runs` lists those that are")
    return found


@dataclass
class _Done:
    """What the records of a run's finished stages know beside the run's own: that one has the counts of stages that
    were passed over too, and is written before the report, which reads it.

    Attributes:
        paid: what endpoints were asked by a run that came to the end of annotating; empty where it did not.
        report: seconds that the report took; None where the run made none.
    """

    paid: dict[str, float] = field(default_factory=dict)
    report: float | None = None


def _done(store: Store, names: Sequence[str]) -> dict[str, _Done]:
    """The same of the runs of these names."""
    from pyspark.sql import functions as sf

    if not store.exists(FINISHED):
        return {}
    rows = store.read(FINISHED).where(sf.col("run_id").isin(list(names)) & sf.col("stage").isin("annotate", "report"))
    found: dict[str, _Done] = {}
    for row in rows.select("run_id", "stage", "counts", "seconds").collect():
        told = found.setdefault(row["run_id"], _Done())
        if row["stage"] == "report":
            told.report = (told.report or 0.0) + row["seconds"]
            continue
        counts = json.loads(row["counts"])
        told.paid = {name: told.paid.get(name, 0) + (counts.get(name) or 0) for name in PAID}
    return found


def price_of(config: Config) -> tuple[float, float] | None:
    """What the endpoints that a config annotates by ask for, in dollars for a million tokens in and out; None where one
    of them has no `price`, or they have different ones, for tokens are counted together."""
    prices = {one and (one.prompt, one.completion) for one in _prices(config.annotate)}
    return prices.pop() if len(prices) == 1 else None


def _prices(section: BaseModel) -> Iterator[Any]:
    for name, value in section:
        if name == "price":
            yield value
        elif isinstance(value, BaseModel):
            yield from _prices(value)


def _past_run(row: dict[str, Any], done: _Done, price: tuple[float, float] | None) -> PastRun:
    decoded = {
        name: json.loads(row[name] or "{}") for name in ("seconds", "certificate", "config", "versions", "inputs")
    }
    plain = {name: row[name] for name in ("run_id", "status", "command", "error")}
    # Spark gives times as the driver's clock on the wall has them, without a zone
    plain |= {name: row[name] and row[name].astimezone(dt.timezone.utc) for name in ("started_at", "ended_at")}
    counts = json.loads(row["counts"] or "{}")
    # a run that failed, and was done under the same name by another try, has a record of each
    paid = dict(counts.get(UNFINISHED, done.paid))
    if not paid.get("requests"):
        paid = {}
    elif price is not None:
        paid["dollars"] = (price[0] * paid["prompt_tokens"] + price[1] * paid["completion_tokens"]) / 1e6
    if done.report is not None:
        decoded["seconds"]["report"] = done.report
        plain["ended_at"] = plain["ended_at"] and plain["ended_at"] + dt.timedelta(seconds=done.report)
    moved = counts.get("select", {}).get("moved")
    flat = {**flat_counts(counts), **({"moved": moved} if moved else {})}
    return PastRun(**plain, **decoded, counts=flat, paid=paid)


def describe_runs(runs: Sequence[PastRun]) -> str:
    """One line a run: when, how long, what came out of it, and what endpoints were asked where some were."""
    head: tuple[str, ...] = ("run", "started (UTC)", "status", "took", "read", "selected", "asked", "stages")
    lines = [head, *(_line(run) for run in runs)]
    if not any(run.paid for run in runs):
        lines = [(*line[:6], line[7]) for line in lines]
        head = lines[0]
    widths = [max(len(line[k]) for line in lines) for k in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _line(run: PastRun) -> tuple[str, ...]:
    took = "" if run.ended_at is None else f"{(run.ended_at - run.started_at).total_seconds():,.0f} s"
    numbers = ("" if run.counts.get(name) is None else f"{run.counts[name]:,}" for name in ("read", "selected"))
    when = f"{run.started_at:%Y-%m-%d %H:%M:%S}"
    return (run.run_id, when, run.status, took, *numbers, _cost(run.paid), run.command)


def _cost(paid: dict[str, float]) -> str:
    """What endpoints were asked, in words; empty where nothing was."""
    if not paid:
        return ""
    tokens = paid["prompt_tokens"] + paid["completion_tokens"]
    dollars = f", ${paid['dollars']:,.2f}" if "dollars" in paid else ""
    return f"{paid['requests']:,} requests, {tokens:,} tokens{dollars}"


def describe_run(run: PastRun) -> str:
    """All that is on record of one run, and how its config differs from the defaults."""
    lines = [f"run {run.run_id}: {run.status}"]
    if run.error:
        lines.append(f"  error        {run.error}")
    lines.append(f"  started      {run.started_at:%Y-%m-%d %H:%M:%S} UTC")
    if run.ended_at is not None:
        lines.append(f"  ended        {run.ended_at:%Y-%m-%d %H:%M:%S} UTC")
    lines += [
        f"  {'stages' if k == 0 else '':<12} {name}: {took:,.1f} s"
        for k, (name, took) in enumerate(run.seconds.items())
    ]
    for title, counts in (
        ("rows", run.counts),
        ("kinds", run.counts.get("kinds")),
        ("rejected", run.counts.get("rejected")),
        ("moved", run.counts.get("moved")),
        ("left for", (run.counts.get("moved") or {}).get("left_because")),
    ):
        told = [(name, n) for name, n in (counts or {}).items() if isinstance(n, (int, float))]
        lines += [f"  {title if k == 0 else '':<12} {name}: {n:,}" for k, (name, n) in enumerate(told)]
    if run.paid:
        lines.append(f"  {'asked':<12} {_cost(run.paid)}")
    named = ("strategy", "engine", "rounds", "kept", "objective", "upper_bound", "random_objective", "ids_sha256")
    facts = [(name, run.certificate[name]) for name in named if run.certificate.get(name) is not None]
    lines += [
        f"  {'certificate' if k == 0 else '':<12} {name}: {f'{value:,.1f}' if isinstance(value, float) else value}"
        for k, (name, value) in enumerate(facts)
    ]
    changed = unlike_defaults(run.config)
    lines += [
        f"  {'config' if k == 0 else '':<12} {key}: {json.dumps(v)}" for k, (key, v) in enumerate(changed.items())
    ]
    lines += [f"  {'versions' if k == 0 else '':<12} {name} {v}" for k, (name, v) in enumerate(run.versions.items())]
    return "\n".join(lines)
