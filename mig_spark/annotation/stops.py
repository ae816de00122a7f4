"""When a run of the stage `annotate` goes no further, and what it says then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mig_spark.annotation.work import Work
from mig_spark.kernels.annotation.annotators import ERRORS
from mig_spark.kernels.annotation.endpoint import BREAKER, CAP, FATAL, NOT_ASKED, UNKNOWN

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# fewer rows than this without an answer say little about a model
_FEW_ROWS = 20
_MOST_FAILED = 0.5


def too_many_fail(work: Work, facts: Mapping[str, int]) -> tuple[int, int] | None:
    """How many rows of a pass failed, and of how many, where these are too many to go on; else None.

    Rows that an earlier run has tried in vain fail again more often than others, so they stop a run only where most of
    all rows have no answer: else rows that no model answers would stop each run until they are given up.
    """
    shares = [(facts["failed_first"], facts["tried_first"])]
    if work.failed > _MOST_FAILED * (work.failed + work.answered + work.cached):
        shares.append((facts["failed"], facts["tried"]))
    return next(((n, of) for n, of in shares if of >= _FEW_ROWS and n > _MOST_FAILED * of), None)


def most_often(failed: DataFrame) -> str:
    """The most frequent error of rows that failed, by what it says before any colon, and whose it is."""
    from pyspark.sql import functions as sf

    errors = sf.array(*(
        sf.struct(sf.lit(who).alias("who"), sf.col(name).alias("error"))
        for who, name in zip(("tagger", "scorer"), ERRORS, strict=True)
    ))  # fmt: skip
    each = failed.select(sf.explode(errors).alias("e")).select("e.*").where("error is not null")
    kinds = each.groupBy("who", sf.substring_index("error", ":", 1).alias("kind")).agg(
        sf.count("*").alias("n"), sf.min("error").alias("example")
    )
    most = kinds.orderBy(sf.desc("n"), "who", "kind").first()
    return "" if most is None else f", most often ({most['n']:,}) from the {most['who']}: {most['example']}"


def why_it_stops(work: Work, reason: str) -> str:
    """The error of a run that has to stop: why, what it has cost so far, and what to do.

    Args:
        work: the run.
        reason: why rows were not asked for, as their tasks say it.
    """
    reason = reason.removeprefix(NOT_ASKED)
    if reason.startswith(CAP):
        caps = {"max_requests": work.config.max_requests, "max_tokens": work.config.max_tokens}
        named = " and ".join(f"annotate.{name} = {value:,}" for name, value in caps.items() if value is not None)
        what = f"stopped at the spend cap ({named})"
        again = "run it again to spend as much once more, or raise the cap"
        then = again if work.cost["requests"] else "raise the cap, for one request sets aside more than it allows"
    elif reason.startswith(UNKNOWN):
        what = f"stopped, since the spend cap could not be kept ({reason})"
        then = (
            "set annotate.spill_path to a folder that all executors share, or run it again to spend as much once more"
        )
    elif reason.startswith(BREAKER):
        what, then = f"the endpoint does not answer ({reason})", "see to it, then run it again to go on"
    else:
        what = f"the endpoint refuses ({reason.removeprefix(f'{FATAL}: ')})"
        then = "set base_url, model and the key (api_key_env, api_key_secret) right, then run it again to go on"
    return f"{what}; every answer so far is committed{_spent(work)}: {then}"


def _spent(work: Work) -> str:
    if not work.plan.paid:
        return ""
    return f" ({work.cost['requests']:,.0f} requests, {work.tokens:,} tokens{work.reused()})"
