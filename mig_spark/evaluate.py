"""`mig-spark evaluate`: what the config's strategy is worth beside others on its pool; writes the table EVIDENCE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mig_spark.config import Config
from mig_spark.contracts import ANNOTATED
from mig_spark.curation.fresh import see_that_annotated_is_fresh, see_that_graph_is_fresh
from mig_spark.evaluation.evidence import MEASURES, Evidence, Line, verdicts
from mig_spark.evaluation.strategies import reads_graph
from mig_spark.evaluation.table import write_evidence
from mig_spark.evaluation.trials import evaluate_pool
from mig_spark.lakehouse.leases import leased
from mig_spark.lakehouse.tables import Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def evaluate(spark: SparkSession, config: Config) -> Evidence:
    """Compare strategies on a sample of the annotated pool of a config, and write EVIDENCE, which the next report
    shows.

    Raises:
        InputError: the pool is not annotated, or was before it changed; the label graph is not there or not of this
            pool; or there are too few rows.
        ContractError: no row has the column of `evaluate.stratum`.
        DependencyError: what compares prompts, or the model that learns, is not there.
        LeaseError: a run is writing these tables.
    """
    store = Store(spark, config.output)
    see_that_annotated_is_fresh(store, config)
    if reads_graph(config):
        see_that_graph_is_fresh(store)
    version = store.version(ANNOTATED)
    found = evaluate_pool(store.pinned({ANNOTATED.name: version}), config)
    with leased(store, config.lock), store.step("evaluate"):
        write_evidence(store, found, config, version)
    return found


def describe_evidence(found: Evidence) -> str:
    """The evidence as text: a table a budget, then what it says of the config's strategy."""
    return "\n".join(_lines(found))


def _lines(found: Evidence) -> Iterator[str]:
    yield (
        f"{found.rows:,} rows of {found.rows_in_all:,}, {found.prompts:,} prompts kept back; {found.strata:,} "
        f"{'value' if found.strata == 1 else 'values'} of {found.stratum}; prompts compared by {found.compared_by}"
    )
    if found.score_follows is not None:
        yield f"rank correlation of score and answer length: {found.score_follows:.2f}"
    for share in sorted({line.share for line in found.lines}):
        yield from _table(found, share)
    if found.training:
        told = found.training
        if "note" in told:
            yield f"\nnote: {told['note']}"
        else:
            yield (
                f"\nloss: of {told['model']}, trained {told['runs']} times on each for {told['steps']} steps of "
                f"{told['batch_tokens']:,} tokens; {told['loss_before']:.4f} before, on {told['prompts']:,} answers"
            )
    yield "\n(in brackets: less random's value, and the 95% interval of that where 0 is outside of it)"
    yield ""
    yield from verdicts(found)
    yield from (f"note: {note}" for note in found.notes)


def _table(found: Evidence, share: float) -> Iterator[str]:
    here = [line for line in found.lines if line.share == share]
    names = list(dict.fromkeys(line.strategy for line in here))
    measures = [m for m in MEASURES if any(line.measure == m for line in here)]
    cell = {(line.strategy, line.measure): shown(line) for line in here}
    head = ["", *(MEASURES[m][0] for m in measures)]
    body = [[name, *(cell.get((name, m), "") for m in measures)] for name in names]
    width = [max(len(row[k]) for row in [head, *body]) for k in range(len(head))]
    yield f"\n{share:.4g} of the rows, {here[0].rows:,}"
    for row in [head, *body]:
        yield "  ".join(text.ljust(w) for text, w in zip(row, width, strict=True)).rstrip()


def shown(line: Line) -> str:
    """A value, with its difference from random where that is told apart from 0."""
    form = ".1f" if line.measure == "strata" else ".2f" if line.measure == "length" else ".3f"
    text = format(line.value, form)
    side = line.beside_random
    if side is None or not side.told_apart:
        return text
    return f"{text} ({side.value:+{form}}: {side.low:+{form}} to {side.high:+{form}})"
