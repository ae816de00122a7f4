"""`mig-spark verify`: where the selection, the pool and the label graph to check come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.config import KEYS_OF_WORK, Config, PoolConfig, SelectConfig, other_settings
from mig_spark.contracts import SELECTION
from mig_spark.curation.finished import Finished, last_finished
from mig_spark.curation.fresh import see_that_annotated_is_there
from mig_spark.curation.published import config_of_selection
from mig_spark.curation.replay import see_that_versions_are_there
from mig_spark.errors import InputError
from mig_spark.ingest.pool import parse_parts, read_table_part
from mig_spark.ingest.sources import Part, find_parts
from mig_spark.kernels.selection.audit import Verdict
from mig_spark.labels.label_graph import load_graph
from mig_spark.lakehouse.lists import Kind, open_table, read_id_frame, read_list
from mig_spark.lakehouse.runtime import collect_arrow
from mig_spark.lakehouse.spark_failures import unreadable_files
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets
from mig_spark.sample import GraphMaker, SampleOptions
from mig_spark.selection.audit import has_minima, verify_selection
from mig_spark.selection.settings import select_settings, settled
from mig_spark.selection.stage import annotated_rows, ids_digest

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def verify_run(spark: SparkSession, config: Config, selection: str | None, *, tolerance: float) -> Verdict:
    """Check a run's own selection by the tables as that run read them, or another list of ids by the tables as they
    are now.

    Raises:
        InputError: a table or the list is missing, or the run's selection was made under a minimum or a cost.
        ReplayError: what the run read is gone.
    """
    if has_minima(config.select.quotas) or config.select.cost or config.select.given or config.select.include:
        raise InputError(
            "verify checks plain selections and maxima; quotas with a minimum, cost, given or include change which row "
            "is the best one to take"
        )
    store = Store(spark, config.output)
    see_that_annotated_is_there(store, config)
    told, problems = None, []
    made = last_finished(store, "select")
    if selection is not None:
        ids = read_ranked_ids(spark, selection)
    else:
        if made and made.certificate.get("kept"):
            raise InputError(
                "the selection was extended: its first rows were chosen from an earlier pool, so they need not be the "
                f"best ones of this pool; `mig-spark replay {made.run_id}` checks it"
            )
        if made and made.certificate.get("strategy", "mig") != "mig":
            raise InputError(
                f"the selection was made by strategy {made.certificate['strategy']}: verify certifies exact greedy "
                f"selections, which only mig makes; `mig-spark replay {made.run_id}` checks that its ids come again"
            )
        _see_that_the_settings_are_those(store, config, made)
        if made:
            # a later run may have written these anew, and then stopped before it selected
            pins = {name: version for name, version in made.reads["tables"].items() if name != SELECTION.name}
            see_that_versions_are_there(store, pins)
            store = store.pinned(pins)
        told = collect_arrow(store.read(SELECTION).select("rank", "id", "gain", "objective")).sort_by("rank")
        ids = told["id"].to_pylist()
        problems = _unlike_record(told, made) if made else []
    where = config.select.exclude
    exclude = None if where is None else read_id_frame(spark, where, "select.exclude")
    select = settled(select_settings(store, config), made.certificate if made else None)
    verdict = verify_selection(
        annotated_rows(store, config), ids, load_graph(store), select,
        tolerance=tolerance, told=told, exclude=exclude,
    )  # fmt: skip
    return replace(verdict, problems=(*problems, *verdict.problems))


def _see_that_the_settings_are_those(store: Store, config: Config, made: Finished | None) -> None:
    """Stop where the selection was made by other settings than those by which it would be checked.

    Raises:
        InputError: it was.
    """
    then = None if made is None else config_of_selection(store, made)
    if made is None or then is None:
        return
    plain = mask_secrets(config.to_dict())
    if other := other_settings(plain, then, (*KEYS_OF_WORK, "upper_bound", "budget")):
        raise InputError(
            f"run {made.run_id} has selected by other settings than the config has now: {'; '.join(other[:4])}: give "
            "the config of that run, or its values by --set, or run the stage `select` again"
        )


def _unlike_record(table: pa.Table, made: Finished) -> list[str]:
    """Where the table `selection` is not what the run that made it has on record."""
    problems, record = [], made.certificate
    if table["rank"].to_pylist() != list(range(1, len(table) + 1)):
        problems.append(f"the ranks are not 1 to {len(table):,}")
    if len(table) != made.counts.get("selected", len(table)):
        problems.append(
            f"the table has {len(table):,} rows, run {made.run_id} has {made.counts['selected']:,} on record"
        )
    if record.get("ids_sha256") not in (None, ids_digest(table["id"].to_pylist())):
        problems.append(f"its ids, or their order, are not those that run {made.run_id} has on record")
    last = table["objective"][-1].as_py() if len(table) else 0.0
    if not math.isclose(last, record.get("objective", last), rel_tol=1e-9):
        problems.append(f"its objective is {last:.9g}, run {made.run_id} has {record['objective']:.9g} on record")
    return problems


def verify_files(spark: SparkSession, selection: str, given: Mapping[str, Any], config: SelectConfig) -> Verdict:
    """Check a list of ids against an annotated pool in files; `given` has the options of the command.

    Raises:
        InputError: something is missing or unusable.
    """
    with unreadable_files(list(given["pool"])):
        frames = [_pool(spark, part) for src in given["pool"] for part in find_parts(spark, PoolConfig(path=src))]
        options = SampleOptions(
            given["pool"], "", valid_tag_path=given["valid_tag_path"], label_graph=given["label_graph"],
            sim_threshold=given["sim_threshold"], embedding_model=given["embedding_model"],
            prop_weight=given["prop_weight"],
        )  # fmt: skip
        graph = GraphMaker(spark, options)
        pool = reduce(lambda a, b: a.unionByName(b), frames)
        ids = read_ranked_ids(spark, selection)
        return verify_selection(pool, ids, graph.source(), config, tolerance=given["tolerance"])


def _pool(spark: SparkSession, part: Part) -> DataFrame:
    if part.is_json:
        staged = parse_parts(spark, [part], PoolConfig(path=part.name), schema="annotation")
        return staged.where("reason is null").selectExpr("id", "given.labels as labels", "given.score as score")
    table = read_table_part(spark, part)
    missing = [name for name in ("id", "labels", "score") if name not in table.columns]
    if missing:
        raise InputError(f"{part.name} has no column {', '.join(missing)} (it has {', '.join(table.columns)})")
    return table.selectExpr("cast(id as string) as id", "labels", "cast(score as double) as score")


def read_ranked_ids(spark: SparkSession, where: str) -> list[str]:
    """Ids in order: by `rank` where the list has one (a table must), else in the order of the file's rows; other tools
    call the id `_id`.

    Raises:
        InputError: nothing is there, or a row has no id.
    """
    option = "the selection"
    columns: dict[str, Kind] = {"id": "text", "_id": "text", "rank": "number"}
    table = read_list(where, columns, option, spark=spark, any_of=tuple(columns))
    names = [name for name in ("id", "_id") if name in table.column_names]
    if not names or ("rank" not in table.column_names and open_table(spark, where) is not None):
        raise InputError(
            f"{option} = {where}: rank and id are needed, or the rows of a file in order with id or _id; it has "
            f"{', '.join(table.column_names)}"
        )
    if "rank" in table.column_names:
        table = table.sort_by("rank")
    ids: list[str | None] = pc.coalesce(*(table[name] for name in names)).to_pylist()
    if None in ids:
        raise InputError(f"{option} = {where}: row {ids.index(None) + 1} has no id; each has id or _id")
    return [name for name in ids if name is not None]
