"""Commands over annotated files, without tables: `sample`, the drop-in for the published tool, and `verify`."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mig_spark.cli.base import cli, read_config
from mig_spark.config import PHI_KEYS, SelectConfig, SparkConfig, build_part
from mig_spark.lakehouse.files import write_lines

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

logger = logging.getLogger(__name__)


def _similarity_only(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value != "sim":
        raise click.BadParameter(
            f"{value!r}: only 'sim' is here, edges by the similarity of labels; give edges of your own by --label-graph"
        )
    return value


def _tell_unused(_context: click.Context, _option: click.Parameter, value: int | None) -> None:
    if value is not None:
        logger.warning("--batch-size %d is not used: the selection does not go by batches", value)


def tell_unused_model(given: Mapping[str, Any]) -> None:
    """Warn where --embedding-model was given beside edges that need no model."""
    if given["label_graph"] is not None and _is_set("embedding_model"):
        logger.warning("--embedding-model is not used: the edges are those of --label-graph")


def _refuse_pickle(_context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        raise click.BadParameter(
            f"{value!r} would be a pickle, and reading one may run any program: it is never loaded; give the annotated "
            "files themselves as SRC"
        )


_SIM_THRESHOLD = "Similarities below it count as 0. Default: 0.9; edges of --label-graph are taken as they are."


@cli.command()
@click.argument("src", nargs=-1, required=True)
@click.option(
    "--out",
    metavar="OUT.jsonl",
    help="Where the selected records go, unchanged, in order. Default: SRC's name, -sampled-N.jsonl",
)
@click.option(
    "-n", "--num", "--num-sample", "budget", required=True, type=click.IntRange(min=0), metavar="N",
    help="Rows to select.",
)  # fmt: skip
@click.option("--valid-tag-path", metavar="FILE", help="JSON list of labels; others are left out. Default: all labels.")
@click.option("--label-graph", metavar="EDGES", help="A file or table with src, dst, weight; then no model is loaded.")
@click.option(
    "--label-graph-type", default="sim", metavar="sim", callback=_similarity_only, expose_value=False,
    help="Labels are joined by the similarity of their embeddings; there is no other type.",
)  # fmt: skip
@click.option("--sim-threshold", type=click.FloatRange(-1, 1), help=_SIM_THRESHOLD)
@click.option("--embedding-model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--phi-type", default="pow", show_default=True, type=click.Choice(["pow", "exp"]))
@click.option("--phi-alpha", default=1.0, show_default=True, help="exp: phi'(x) = alpha exp(-alpha x).")
@click.option("--phi-a", default=1e-6, show_default=True, help="pow: phi(x) = (x + a)^b.")
@click.option("--phi-b", default=0.8, show_default=True)
@click.option(
    "--prop-weight", default=1.0, type=click.FloatRange(0, 1e100), show_default=True,
    help="Weight of the label graph's edges.",
)  # fmt: skip
@click.option(
    "--norm/--no-norm", default=False, show_default=True, help="Divide a row's score by its number of labels."
)
@click.option(
    "--sampler-type", default="mig", show_default=True, metavar="NAME",
    help="How records are chosen: mig, random, or another strategy (docs/strategies.md).",
)  # fmt: skip
@click.option("--gain", default="gradient", show_default=True, type=click.Choice(["gradient", "exact"]))
@click.option(
    "--engine", default="auto", show_default=True, type=click.Choice(["auto", "rounds", "local"]),
    help="auto: without Spark where local files fit into memory; rounds and local: through Spark.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True, help="Of strategies that draw at random.")
@click.option(
    "--batch-size", type=int, metavar="N", callback=_tell_unused, expose_value=False,
    help="Taken and not used: the selection does not go by batches.",
)  # fmt: skip
@click.option(
    "--load-from", metavar="FILE", callback=_refuse_pickle, expose_value=False,
    help="Refused: a pickle, which may run any program.",
)  # fmt: skip
@click.option("--stats", metavar="FILE.json", help="Write counts, objective, timings and peak memory there.")
@click.option("--driver-memory", default="2g", show_default=True, help="JVM memory of the local session.")
def sample(src: tuple[str, ...], out: str | None, stats: str | None, **given: Any) -> None:
    """Select records of annotated files: a drop-in for the published tool's `mig sample`.

    SRC: annotated JSONL or JSON (dialogs, annotation.instag, annotation.deita; or labels and score at the top level),
    Parquet or Delta with id, labels, score. Ties go by input position.
    """
    from mig_spark.lakehouse.memory import watch_memory
    from mig_spark.sample import SampleOptions, default_out, files_for
    from mig_spark.sample import sample as run_sample

    tell_unused_model(given)
    out = default_out(src, given["budget"]) if out is None else out
    options = SampleOptions(
        src,
        out,
        valid_tag_path=given["valid_tag_path"],
        label_graph=given["label_graph"],
        sim_threshold=given["sim_threshold"],
        embedding_model=given["embedding_model"],
        prop_weight=given["prop_weight"],
        select=_select_config(given),
    )
    with watch_memory() as peak:
        started = time.perf_counter()
        files = files_for(options, [stats] if stats else ())
        with _session_unless(files is not None, given["driver_memory"]) as spark:
            ready = time.perf_counter() - started
            done = run_sample(spark, options, files)
            done["seconds"] = {"session": round(ready, 3), **done["seconds"]}
            done["peak_memory_gb"] = peak.gb
            if stats:
                write_lines([json.dumps(done, indent=2)], stats, spark)
    click.echo(_sample_summary(done, out))


@contextlib.contextmanager
def _session_unless(here: bool, driver_memory: str) -> Iterator[SparkSession | None]:
    """A session, unless all is done in this process."""
    if here:
        yield None
        return
    from mig_spark.lakehouse.session import open_session

    with open_session(SparkConfig(driver_memory=driver_memory)) as session:
        yield session.spark


@cli.command()
@click.argument("selection", required=False)
@click.option(
    "--config", "config_path", metavar="CONFIG", help="Check a run's own tables; SELECTION defaults to its own."
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="With --config: override a value.")
@click.option("--pool", multiple=True, metavar="SRC", help="The annotated pool, as for `sample`. Repeatable.")
@click.option("--valid-tag-path", metavar="FILE", help="JSON list of labels; others are left out.")
@click.option("--label-graph", metavar="EDGES", help="A file or table with src, dst, weight.")
@click.option("--embedding-model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--sim-threshold", type=click.FloatRange(-1, 1), help=_SIM_THRESHOLD)
@click.option("--phi-type", default="pow", show_default=True, type=click.Choice(["pow", "exp"]))
@click.option("--phi-alpha", default=1.0, show_default=True, help="As for `sample`.")
@click.option("--phi-a", default=1e-6, show_default=True, help="As for `sample`.")
@click.option("--phi-b", default=0.8, show_default=True)
@click.option(
    "--prop-weight", default=1.0, type=click.FloatRange(0, 1e100), show_default=True, help="Weight of the edges."
)
@click.option("--norm/--no-norm", default=False, show_default=True, help="As for `sample`.")
@click.option("--gain", default="gradient", show_default=True, type=click.Choice(["gradient", "exact"]))
@click.option("--tolerance", default=0.0, show_default=True, help="Relative; 1e-6 for a tool that computes in float32.")
def verify(selection: str | None, config_path: str | None, overrides: Sequence[str], **given: Any) -> None:
    """Check in one pass whether an ordered list of ids is an exact greedy selection; exit code 1 where it is not.

    SELECTION: JSON lines or CSV with `id` or `_id`, or a table or Parquet with `rank` and `id`, of any tool.
    """
    from mig_spark.lakehouse.session import open_session
    from mig_spark.selection.audit import describe
    from mig_spark.verify import verify_files, verify_run

    if (config_path is None) == (not given["pool"]):
        raise click.UsageError("give --pool and SELECTION, or --config")
    if config_path is None and selection is None:
        raise click.UsageError("give the SELECTION to check")
    if config_path is None and overrides:
        raise click.UsageError("--set overrides a value of --config, which is not given")
    if config_path is not None and (also := [n for n in given if n != "tolerance" and _is_set(n)]):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in also)
        raise click.UsageError(f"with --config the config says how the run selected: leave out {named}")
    tell_unused_model(given)
    config = read_config(config_path, overrides) if config_path else None
    with open_session(config.spark if config else None) as session:
        if config is not None:
            verdict = verify_run(session.spark, config, selection, tolerance=given["tolerance"])
        else:
            options = {**given, "budget": 0, "engine": "auto"}
            assert selection is not None
            verdict = verify_files(session.spark, selection, options, _select_config(options))
    click.echo(describe(verdict))
    if not verdict.certified:
        sys.exit(1)


def _select_config(given: dict[str, Any]) -> SelectConfig:
    """The section `select` from the options of `sample` and `verify`: of those that the strategy goes by."""
    plain = {"strategy": given.get("sampler_type", "mig"), "budget": given["budget"]}
    strategy = build_part(SelectConfig, plain, where="sample").strategy
    # of mig only `auto` and targets draw rows, which are no options here
    goes_by = strategy.goes_by - ({"seed"} if strategy.kind == "mig" else set())
    unused = [option for option, key in _KEYS.items() if key not in goes_by]
    unused += [] if strategy.reads_graph else list(_OF_GRAPH)
    if told := [f"--{option.replace('_', '-')}" for option in unused if option in given and _is_set(option)]:
        logger.warning("%s: not used, for --sampler-type %s does not go by it", ", ".join(told), strategy.kind)
    kind = given["phi_type"]
    phi = {"kind": kind, **{key: given[f"phi_{key}"] for key in PHI_KEYS[kind]}}
    other = [f"phi_{key}" for keys in PHI_KEYS.values() for key in keys if key not in PHI_KEYS[kind]]
    if "phi" in strategy.goes_by and (told := [f"--{name.replace('_', '-')}" for name in other if _is_set(name)]):
        logger.warning("%s: not used, for --phi-type %s does not go by it", ", ".join(told), kind)
    more = {"phi": phi, "gain": given["gain"], "norm": given["norm"], "engine": given["engine"], "upper_bound": False}
    more["seed"] = given.get("seed", 0)
    plain |= {key: value for key, value in more.items() if key in goes_by}
    return build_part(SelectConfig, plain, where="sample")


#: Keys of the section `select` by the options of `sample` that they come from.
_KEYS = {
    "phi_type": "phi", "phi_alpha": "phi", "phi_a": "phi", "phi_b": "phi", "norm": "norm", "gain": "gain",
    "engine": "engine", "seed": "seed",
}  # fmt: skip
#: Options of `sample` for the label graph.
_OF_GRAPH = ("label_graph", "sim_threshold", "prop_weight", "embedding_model", "valid_tag_path")


def _sample_summary(done: dict[str, Any], out: str) -> str:
    rejected = ", ".join(f"{n:,} {why}" for why, n in done["rejected"].items())
    lines = [f"  rows         {done['rows']:,}" + (f"  (rejected: {rejected})" if rejected else "")]
    if done["labels"] is not None:
        left = done["labels_left_out"]
        lines.append(
            f"  labels       {done['labels']:,}, {done['edges']:,} edges"
            + (f"  ({left:,} labels of rows outside the list left out)" if left else "")
        )
    lines.append(f"  selected     {done['selected']:,} in {out}")
    if done["strategy"] != "mig":
        lines.append(f"  strategy     {done['strategy']}")
    if done["objective"] is not None:
        lines.append(f"  objective    {done['objective']:,.4f}")
    if done["engine"] is not None:
        lines.append(f"  engine       {done['engine']}, {done['rounds']} round{'s' if done['rounds'] != 1 else ''}")
    return "\n".join([*lines, *(f"  note: {note}" for note in done["notes"])])


def _is_set(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT
