"""The command line: one command a capability. The jobs call the same functions."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from mig_spark.config import (
    Config,
    SelectConfig,
    SparkConfig,
    build_config,
    build_part,
    check_overrides,
    load_config,
    parse_config,
)
from mig_spark.curation.stages import STAGES
from mig_spark.errors import ConfigError, MigError
from mig_spark.lakehouse.files import is_remote, local_path, read_bytes, write_lines
from mig_spark.scrub import Scrubbed, scrub

logger = logging.getLogger(__name__)

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Commands whose line in the list is the first sentence of their help, never cut."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """See click."""
        cmd.short_help = re.split(r"\.(?=\s|$)", " ".join((cmd.help or "").split()))[0]
        super().add_command(cmd, name)


class _PicksKinds(click.Command):
    """A command whose help lists the kinds that a config may name, those of installed packages included."""

    def __init__(self, *args: Any, keys: Sequence[str], **rest: Any) -> None:
        super().__init__(*args, **rest)
        self._keys = keys

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click."""
        from mig_spark.config.describe import FAMILIES, summary

        for key in self._keys:
            with formatter.section(key):
                formatter.write_dl([(kind, summary(model)) for kind, model in FAMILIES[key].all().items()])
        super().format_epilog(ctx, formatter)


@click.group(cls=_Commands, context_settings=_HELP)
@click.version_option(package_name="mig-spark")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what went wrong.")
def cli(verbose: bool, quiet: bool) -> None:
    """Select the rows of an instruction-tuning pool that carry the most information (MIG), exactly, with Spark.

    First time: mig-spark quickstart. Your own pool: mig-spark config > config.yaml, edit, mig-spark run config.yaml.
    """
    _set_up_logging(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)


def _set_up_logging(level: int) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Scrubbed("%(asctime)s  %(message)s", "%H:%M:%S"))
    root = logging.getLogger("mig_spark")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level)
    # py4j tells a broken connection to the JVM through the root logger, with a stack trace for each call; what has
    # happened is told once (lakehouse/jvm.py)
    others = logging.StreamHandler(sys.stderr)
    others.addFilter(lambda record: "py4j" not in record.pathname)
    logging.getLogger().handlers[:] = [others]


def _stage_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the run as JSON, as stdout's last line."),
        click.option("--run-id", metavar="ID", help="The scheduler's name for this run. Default: a new one."),
        click.option(
            "--set",
            "overrides",
            multiple=True,
            metavar="KEY=VALUE",
            help="Override a config value, e.g. --set select.budget=50000. Repeatable.",
        ),
        click.argument("config", type=click.Path(dir_okay=False)),
    ):
        command = option(command)
    return command


@cli.command(epilog="Example: mig-spark config > config.yaml; mig-spark run config.yaml --set select.budget=50000")
@_stage_options
@click.option("--fresh", is_flag=True, help="Do every stage, also where nothing has changed since it was done.")
def run(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None, fresh: bool) -> None:
    """Run the whole flow on your pool: ingest, annotate, vocabulary (where it is on), label graph, select, report.

    A stage that was done before from the same inputs, with the same config and code, is passed over: start a run that
    died again, and it goes on where it was.

    CONFIG is a YAML file; pool.path and output.path are the only keys it must have. `mig-spark config` prints one with
    every key, its default and what it means.
    """
    _run(_loaded(config, overrides, as_json, run_id), tuple(STAGES), as_json=as_json, run_id=run_id, fresh=fresh)


def _add_stage(name: str) -> None:
    @cli.command(name, help=STAGES[name].help)
    @_stage_options
    def stage(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None) -> None:
        _run(_loaded(config, overrides, as_json, run_id), (name,), as_json=as_json, run_id=run_id)


@cli.command(cls=_PicksKinds, keys=("annotate.tagger", "annotate.scorer"), help=STAGES["annotate"].help)
@_stage_options
@click.option("--dry-run", is_flag=True, help="Only estimate time, requests and tokens, from a sample of 200 rows.")
def annotate(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None, dry_run: bool) -> None:
    """The stage, or what it would take."""
    if not dry_run:
        _run(_loaded(config, overrides, as_json, run_id), ("annotate",), as_json=as_json, run_id=run_id)
        return
    from mig_spark.annotation.preflight import describe_preview, preview_annotation
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    loaded = _read_config(config, overrides)
    with open_session(loaded.spark) as session:
        preview = preview_annotation(Store(session.spark, loaded.output), loaded)
    click.echo(describe_preview(preview))
    if as_json:
        click.echo(json.dumps(preview.to_dict()))


@cli.command(cls=_PicksKinds, keys=("select.strategy",), help=STAGES["select"].help)
@_stage_options
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on from the last round that a stopped run saved."
)
def select(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None, resume: bool) -> None:
    """The stage; `resume` is of this one alone."""
    loaded = _loaded(config, overrides, as_json, run_id)
    _run(loaded, ("select",), as_json=as_json, run_id=run_id, resume=resume)


for _name in STAGES:
    if _name not in cli.commands:
        _add_stage(_name)


@cli.command()
@click.option("--output", default="mig-quickstart", show_default=True, metavar="DIR", help="Where everything goes.")
@click.option("--budget", default=100, show_default=True, type=click.IntRange(min=0), help="Rows to select.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON, as stdout's last line.")
def quickstart(output: str, budget: int, as_json: bool) -> None:
    """Run everything on the bundled sample: no data, no cluster, no model hub needed."""
    from mig_spark.data import sample_paths
    from mig_spark.lakehouse.session import SMALL_CONF, SMALL_JVM

    config = build_config(
        {
            "pool": {"path": [str(p) for p in sample_paths()]},
            "output": {"path": str(Path(output).absolute())},
            "select": {"budget": budget},
            "spark": {"jvm_options": SMALL_JVM, "conf": SMALL_CONF},
        },
        where="quickstart",
    )
    _run(config, tuple(STAGES), as_json=as_json)
    click.echo(_next_steps(output))


def _similarity_only(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value != "sim":
        raise click.BadParameter(
            f"{value!r}: only 'sim' is here, edges by the similarity of labels; give edges of your own by --label-graph"
        )
    return value


def _tell_unused(_context: click.Context, _option: click.Parameter, value: int | None) -> None:
    if value is not None:
        logger.warning("--batch-size %d is not used: the selection does not go by batches", value)


def _tell_unused_model(given: Mapping[str, Any]) -> None:
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
@click.option("--sim-threshold", type=float, help=_SIM_THRESHOLD)
@click.option("--embedding-model", default="sentence-transformers/all-MiniLM-L6-v2", show_default=True)
@click.option("--phi-type", default="pow", show_default=True, type=click.Choice(["pow", "exp"]))
@click.option("--phi-alpha", default=1.0, show_default=True, help="exp: phi'(x) = alpha exp(-alpha x).")
@click.option("--phi-a", default=1e-6, show_default=True, help="pow: phi(x) = (x + a)^b.")
@click.option("--phi-b", default=0.8, show_default=True)
@click.option("--prop-weight", default=1.0, show_default=True, help="Weight of the label graph's edges.")
@click.option(
    "--norm/--no-norm", default=False, show_default=True, help="Divide a row's score by its number of labels."
)
@click.option(
    "--sampler-type", default="mig", show_default=True, metavar="NAME",
    help="How records are chosen: mig, random, or another strategy (docs/algorithm.md).",
)  # fmt: skip
@click.option("--gain", default="gradient", show_default=True, type=click.Choice(["gradient", "exact"]))
@click.option("--engine", default="auto", show_default=True, type=click.Choice(["auto", "rounds", "local"]))
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
    from mig_spark.lakehouse.session import open_session
    from mig_spark.sample import SampleOptions, default_out
    from mig_spark.sample import sample as run_sample

    _tell_unused_model(given)
    out = default_out(src[0], given["budget"]) if out is None else out
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
        with open_session(SparkConfig(driver_memory=given["driver_memory"])) as session:
            ready = time.perf_counter() - started
            done = run_sample(session.spark, options)
            done["seconds"] = {"session": round(ready, 3), **done["seconds"]}
            done["peak_memory_gb"] = peak.gb
            if stats:
                write_lines([json.dumps(done, indent=2)], stats, session.spark)
    click.echo(_sample_summary(done, out))


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
@click.option("--sim-threshold", type=float, help=_SIM_THRESHOLD)
@click.option("--phi-type", default="pow", show_default=True, type=click.Choice(["pow", "exp"]))
@click.option("--phi-alpha", default=1.0, show_default=True, help="As for `sample`.")
@click.option("--phi-a", default=1e-6, show_default=True, help="As for `sample`.")
@click.option("--phi-b", default=0.8, show_default=True)
@click.option("--prop-weight", default=1.0, show_default=True, help="Weight of the edges.")
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
    _tell_unused_model(given)
    config = _read_config(config_path, overrides) if config_path else None
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


@cli.command(epilog="Example: mig-spark export config.yaml --to messages --out train.jsonl --first 1000")
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option(
    "--to",
    "form",
    default="records",
    show_default=True,
    metavar="FORM",
    help="records: the rows as they came; messages: id, messages (role, content), labels, score, rank, gain.",
)
@click.option("--out", required=True, metavar="FILE", help="Where they go, one JSON object a line.")
@click.option("--first", type=click.IntRange(min=0), metavar="N", help="Only the first N by rank. Default: all.")
def export(config: str, overrides: Sequence[str], form: str, out: str, first: int | None) -> None:
    """Write the selected rows to a file, in order of rank."""
    from mig_spark.export import export_rows
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    settings = _read_config(config, overrides)
    with open_session(settings.spark) as session:
        rows = export_rows(Store(session.spark, settings.output), form, out, first=first)
    click.echo(f"  {rows:,} rows in {out}")


@cli.command()
@click.argument("run_id")
@click.option("--config", "config_path", required=True, metavar="CONFIG", help="Says where the tables are.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option(
    "--from-source", is_flag=True, help="Make the pool again too, from the versions and files it was read from."
)
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON, as stdout's last line.")
def replay(run_id: str, config_path: str, overrides: Sequence[str], from_source: bool, as_json: bool) -> None:
    """Select once more as RUN_ID did, from the table versions that it read; exit code 1 where the ids differ.

    Nothing is written, and no model is needed: labels and scores are read at the versions that the run read.
    """
    from mig_spark.curation.replay import describe_replay, replay_run
    from mig_spark.lakehouse.session import open_session

    config = _read_config(config_path, overrides)
    with open_session(config.spark) as session:
        done = replay_run(session.spark, config, run_id, from_source=from_source)
    click.echo(describe_replay(done))
    if as_json:
        click.echo(json.dumps(done.to_dict()))
    if not done.same:
        sys.exit(1)


def _select_config(given: dict[str, Any]) -> SelectConfig:
    """The section `select` from the options of `sample` and `verify`: of those that the strategy goes by."""
    plain = {"strategy": given.get("sampler_type", "mig"), "budget": given["budget"], "seed": given.get("seed", 0)}
    strategy = build_part(SelectConfig, plain, where="sample").strategy
    known = {name for name in _KEYS.values() if strategy.goes_by is None or name in strategy.goes_by}
    unused = [option for option, key in _KEYS.items() if key not in known]
    unused += [] if strategy.reads_graph else list(_OF_GRAPH)
    if told := [f"--{option.replace('_', '-')}" for option in unused if option in given and _is_set(option)]:
        logger.warning("%s: not used, for --sampler-type %s does not go by it", ", ".join(told), strategy.kind)
    phi = {"kind": given["phi_type"], "a": given["phi_a"], "b": given["phi_b"], "alpha": given["phi_alpha"]}
    more = {"phi": phi, "gain": given["gain"], "norm": given["norm"], "engine": given["engine"], "upper_bound": False}
    plain |= {key: value for key, value in more.items() if key in known}
    return build_part(SelectConfig, plain, where="sample")


#: Keys of the section `select` by the options of `sample` that they come from.
_KEYS = {
    "phi_type": "phi", "phi_alpha": "phi", "phi_a": "phi", "phi_b": "phi", "norm": "norm", "gain": "gain",
    "engine": "engine", "": "upper_bound",
}  # fmt: skip
#: Options of `sample` for the label graph.
_OF_GRAPH = ("label_graph", "sim_threshold", "prop_weight", "embedding_model", "valid_tag_path")


def _is_set(option: str) -> bool:
    return click.get_current_context().get_parameter_source(option) is not ParameterSource.DEFAULT


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


@cli.command("config")
@click.option("--schema", is_flag=True, help="Print the JSON schema instead.")
def config_command(schema: bool) -> None:
    """Print a commented example config with every key and its default."""
    if schema:
        click.echo(json.dumps(Config.model_json_schema(by_alias=True), indent=2))
    else:
        from mig_spark.config.describe import example_yaml

        click.echo(example_yaml(), nl=False)


@cli.command(epilog="Then: mig-spark run config.yaml --set annotate.tagger.vocabulary=vocabulary.json")
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--out", default="vocabulary.json", show_default=True, metavar="FILE", help="Where the labels go.")
def induce(config: str, overrides: Sequence[str], out: str) -> None:
    """Find labels for a pool that has none: cluster its rows and name the clusters, into a JSON list to read and trim.

    The pool must have been ingested; vocabulary.induce in the config says how many clusters.
    """
    from mig_spark.labels.induce import induce_vocabulary
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    settings = _read_config(config, overrides)
    with open_session(settings.spark) as session:
        done = induce_vocabulary(Store(session.spark, settings.output), settings, path=out)
    click.echo(f"  {len(done['labels']):,} labels of {done['clusters']:,} clusters of {done['rows']:,} rows in {out}")


def _run(
    config: Config,
    stages: Sequence[str],
    *,
    as_json: bool,
    resume: bool = True,
    fresh: bool | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    from mig_spark.lakehouse.session import open_session
    from mig_spark.pipeline import run_pipeline
    from mig_spark.summary import summarise

    with _failure_told(as_json, run_id), open_session(config.spark) as session:
        done = run_pipeline(session.spark, config, stages, resume=resume, fresh=fresh, run_id=run_id)
    click.echo(summarise(done, stages))
    if as_json:
        plain = {k: v for k, v in done.items() if k not in ("random_curve", "config")}
        click.echo(json.dumps({**plain, "status": "ok", "exit_code": 0}))
    return done


def _loaded(path: str, overrides: Sequence[str], as_json: bool, run_id: str | None) -> Config:
    from mig_spark.lakehouse.runs import check_run_id

    with _failure_told(as_json, run_id):
        if run_id is not None:
            check_run_id(run_id)
        return _read_config(path, overrides)


def _read_config(path: str, overrides: Sequence[str]) -> Config:
    """The config, from wherever Spark reads where this is a platform, which has the credentials."""
    if not is_remote(path):
        return load_config(local_path(path), overrides)
    from mig_spark.lakehouse.session import get_session, is_managed

    # the platform's own, which stays
    spark = get_session(SparkConfig()).spark if is_managed() else None
    return parse_config(read_bytes(path, spark), overrides, where=path)


@contextlib.contextmanager
def _failure_told(as_json: bool, run_id: str | None) -> Iterator[None]:
    """A scheduler reads the last line of stdout, also of a run that failed or could not begin."""
    try:
        yield
    except MigError as e:
        if as_json:
            told = {"run_id": e.run_id or run_id, "status": "failed", "error": str(e), "kind": type(e).__name__}
            click.echo(json.dumps({**told, "exit_code": e.exit_code}))
        raise


def _next_steps(output: str) -> str:
    return (
        "\nWhat to do next\n"
        f"  look:            open {output}/report.html in a browser\n"
        "  your own data:   mig-spark config > config.yaml, set pool.path, then mig-spark run config.yaml\n"
        "  from Python:     from mig_spark import select  (README, section Python)"
    )


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: errors that a user can cause end in one line on stderr and exit code 2."""
    sys.excepthook = _print_trace
    try:
        code = cli.main(args=list(args) if args is not None else None, standalone_mode=False)
    except MigError as e:
        _end(e)
    except click.ClickException as e:
        e.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mig-spark: stopped", err=True)
        sys.exit(130)
    if code:
        # a clean end is a return: job runners on managed platforms take any SystemExit, 0 included, for a failure
        sys.exit(code)


def _print_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The stack trace of an error that nobody foresaw, without secrets."""
    click.echo(scrub("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def _end(error: MigError) -> NoReturn:
    click.echo(f"mig-spark: {' '.join(str(error).split())}", err=True)
    sys.exit(error.exit_code)


def job(command: str, args: Sequence[str] | None = None) -> None:
    """What every job does: its stage in the session that spark-submit gives, the run as JSON in stdout's last line."""
    parser = argparse.ArgumentParser(description=f"mig-spark {command}, for spark-submit")
    parser.add_argument("--config", required=True, help="YAML config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a config value")
    parser.add_argument(
        "--overrides", default="", metavar="TEXT", help="several KEY=VALUE in one text, split as a shell would"
    )
    parser.add_argument(
        "--allow-overrides",
        default="*",
        metavar="KEYS",
        help="keys that --overrides may set, separated by commas, with all below them; *: any (the default)",
    )
    parser.add_argument("--run-id", help="the scheduler's name for this run")
    given = parser.parse_args(args)
    named = ["--run-id", given.run_id] if given.run_id else []
    try:
        with _failure_told(True, given.run_id):
            more = _split(given.overrides)
            if given.allow_overrides.strip() != "*":
                check_overrides(more, filter(None, given.allow_overrides.split(",")))
    except MigError as e:
        _end(e)
    overrides = [*given.set, *more]
    main([command, given.config, "--json", *named, *(part for text in overrides for part in ("--set", text))])


def _split(overrides: str) -> list[str]:
    try:
        return shlex.split(overrides)
    except ValueError as e:
        # the text itself may hold a secret
        raise ConfigError(f"--overrides cannot be split ({e}): give KEY=VALUE texts, and close every quote") from None


def job_main(args: Sequence[str] | None = None) -> None:
    """Entry point `mig-job STAGE --config CONFIG ...`: the jobs for platforms that start a wheel and not a script."""
    parser = argparse.ArgumentParser(prog="mig-job", description="one stage, or `run` for all", add_help=False)
    parser.add_argument("stage", choices=("run", *STAGES))
    given, rest = parser.parse_known_args(args)
    job(given.stage, rest)


if __name__ == "__main__":
    main()
