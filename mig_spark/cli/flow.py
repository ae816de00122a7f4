"""Commands over the tables of one output: the whole flow, a stage, what is made of its result."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mig_spark.cli.base import PicksKinds, cli, failure_told, loaded_config, read_config, run_stages, stage_options
from mig_spark.config import Config, build_config
from mig_spark.curation.stages import STAGES
from mig_spark.errors import InputError

if TYPE_CHECKING:
    from mig_spark.export.lengths import Lengths


@cli.command(epilog="Example: mig-spark init data/pool.jsonl; mig-spark run config.yaml --set select.budget=50000")
@stage_options
@click.option("--fresh", is_flag=True, help="Do every stage, also where nothing has changed since it was done.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only say what would be done: rows, time, memory, requests, tokens, money; exit code 2 where it cannot work.",
)
def run(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None, fresh: bool, dry_run: bool) -> None:
    """Run the whole flow on your pool: ingest, screen, annotate, graph, select, export, report.

    Between annotate and graph, vocabulary, where the config has it on; export, where output.exports names formats.

    A stage that was done before from the same inputs, with the same config and code, is passed over: start a run that
    died again, and it goes on where it was.

    CONFIG is a YAML file; pool.path and output.path are the only keys it must have. `mig-spark init` writes one for
    your pool, `mig-spark config` prints one with every key, its default and what it means.
    """
    if dry_run:
        _dry_run(loaded_config(config, overrides, as_json, run_id), fresh=fresh, as_json=as_json, run_id=run_id)
        return
    run_stages(
        loaded_config(config, overrides, as_json, run_id), tuple(STAGES), as_json=as_json, run_id=run_id, fresh=fresh
    )


def _dry_run(config: Config, *, fresh: bool, as_json: bool, run_id: str | None) -> None:
    from mig_spark.dry_run import describe_dry_run, plan_run, see_that_it_can_work
    from mig_spark.lakehouse.session import open_session

    with failure_told(as_json, run_id):
        with open_session(config.spark) as session:
            plan = plan_run(session.spark, config, fresh=fresh)
        click.echo(describe_dry_run(plan))
        see_that_it_can_work(plan)
    if as_json:
        click.echo(json.dumps({"status": "dry run", "exit_code": 0, **plan.to_dict()}))


def _add_stage(name: str) -> None:
    @cli.command(name, help=STAGES[name].help)
    @stage_options
    def stage(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None) -> None:
        run_stages(loaded_config(config, overrides, as_json, run_id), (name,), as_json=as_json, run_id=run_id)


@cli.command(cls=PicksKinds, keys=("annotate.tagger", "annotate.scorer"), help=STAGES["annotate"].help)
@stage_options
@click.option(
    "--dry-run", is_flag=True, help="Only estimate time, requests, tokens and money, from a sample of 200 rows."
)
def annotate(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None, dry_run: bool) -> None:
    """The stage, or what it would take."""
    if not dry_run:
        run_stages(loaded_config(config, overrides, as_json, run_id), ("annotate",), as_json=as_json, run_id=run_id)
        return
    from mig_spark.annotation.preflight import describe_preview, preview_annotation
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    loaded = read_config(config, overrides)
    with open_session(loaded.spark) as session:
        preview = preview_annotation(Store(session.spark, loaded.output), loaded)
    click.echo(describe_preview(preview))
    if as_json:
        click.echo(json.dumps(preview.to_dict()))


@cli.command(cls=PicksKinds, keys=("select.strategy",), help=STAGES["select"].help)
@stage_options
@click.option(
    "--resume/--no-resume", default=True, show_default=True, help="Go on from the last round that a stopped run saved."
)
def select(config: str, overrides: Sequence[str], as_json: bool, run_id: str | None, resume: bool) -> None:
    """The stage; `resume` is of this one alone."""
    loaded = loaded_config(config, overrides, as_json, run_id)
    run_stages(loaded, ("select",), as_json=as_json, run_id=run_id, resume=resume)


@cli.command(
    cls=PicksKinds,
    keys=("output.exports",),
    epilog="Example: mig-spark export config.yaml --to trl --out train --first 1000",
)
@click.argument("config", type=click.Path())
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--to", "form", metavar="FORMAT", help="One of those below. Default: records.")
@click.option(
    "--out",
    metavar="DIR",
    help="A folder that is not there yet; records and messages also into a file, named .jsonl or .json.",
)
@click.option("--first", type=click.IntRange(min=0), metavar="N", help="Only the first N by rank. Default: all.")
@click.option("--check", is_flag=True, help="Read what was written again; with a file or folder as CONFIG: only that.")
@click.option(
    "--tokenizer", metavar="DIR", help="Rows that its chat template refuses are left out; needs the extra embed."
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), metavar="N", help="Rows with more, by --tokenizer, are left out."
)
@click.option(
    "--push-to-hub",
    "hub",
    metavar="NAME",
    help="With --to huggingface: put the folder on the Hub as data set owner/name.",
)
@click.option("--public", is_flag=True, help="With --push-to-hub: a new data set can be read by all. Default: private.")
@click.option("--strict", is_flag=True, help="Exit code 3, with nothing written, where the format cannot hold a row.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON, as stdout's last line.")
@click.option("--run-id", metavar="ID", help="Without --out: the scheduler's name for this run. Default: a new one.")
def export(
    config: str,
    overrides: Sequence[str],
    form: str | None,
    out: str | None,
    first: int | None,
    check: bool,
    tokenizer: str | None,
    max_tokens: int | None,
    hub: str | None,
    public: bool,
    strict: bool,
    as_json: bool,
    run_id: str | None,
) -> None:
    """Write the selected rows for people and trainers, in order of rank.

    Rows that a format cannot hold, or that its trainer would drop, are listed in export_skipped.jsonl with the reason.
    Keys of a record that no trainer reads (ids, dates, URLs and the like) stay out of trainers' formats, and are
    counted; records, parquet and delta have every key.
    Without --to and --out it is the stage `export`: the formats of output.exports, into folders below output.path.
    With --check DIR --to FORMAT, files that are there are held against the format: exit code 1 where it finds anything.
    """
    if public and hub is None:
        raise click.UsageError("--public says who may read what --push-to-hub makes: give that too")
    if check and out is None:
        if hub is not None:
            raise click.UsageError("--push-to-hub puts on the Hub what an export writes: name its folder with --out")
        unread = {"--first": first is not None, "--strict": strict, "--set": overrides, "--run-id": run_id is not None}
        if given := [name for name, there in unread.items() if there]:
            raise click.UsageError(
                f"{given[0]} does not go with --check of files that are there; give --out DIR too, to write an export "
                "and read it again"
            )
        if config.lower().endswith((".yaml", ".yml")):
            raise click.UsageError(
                f"--check without --out looks at files that are there, and {config} is a config: give --out DIR too, "
                "or name the files in place of the config"
            )
        _check_files(config, form, tokenizer, max_tokens, as_json)
        return
    if out is None:
        if form is not None or first is not None or strict or hub is not None:
            raise click.UsageError("Missing option '--out'.")
        if tokenizer is not None or max_tokens is not None:
            raise click.UsageError(
                "--tokenizer and --max-tokens leave rows out of a folder, or look at files: give --out DIR, or --check"
            )
        run_stages(loaded_config(config, overrides, as_json, run_id), ("export",), as_json=as_json, run_id=run_id)
        return
    from mig_spark.export.hub import push_folder, see_that_it_can_be_pushed
    from mig_spark.export.write import describe_export, export_file, export_folder, format_named, names_file
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    with failure_told(as_json, None):
        settings = read_config(config, overrides)
        chosen, lengths = format_named(form or "records", settings), _lengths(tokenizer, max_tokens)
        if hub is not None:
            see_that_it_can_be_pushed(hub, chosen, out)
        with open_session(settings.spark) as session:
            store = Store(session.spark, settings.output)
            if names_file(out):
                if lengths is not None or check:
                    raise InputError(f"--out {out}: --check and --tokenizer go with a folder: name one")
                done = export_file(store, settings, chosen, out, first=first)
            else:
                done = export_folder(
                    store, settings, chosen, out, first=first, strict=strict, check=check, further=lengths
                )
        pushed = None if hub is None else push_folder(out, hub, public=public)
    click.echo(describe_export(done, out))
    if pushed is not None:
        click.echo(f"  on the Hub: {pushed}")
    if as_json:
        click.echo(json.dumps({**done.to_dict(), **({} if pushed is None else {"hub": pushed})}))


def _lengths(tokenizer: str | None, max_tokens: int | None) -> Lengths | None:
    from mig_spark.export.lengths import lengths_of

    if tokenizer is None:
        if max_tokens is not None:
            raise InputError(f"--max-tokens {max_tokens}: say which tokenizer counts them: --tokenizer DIR")
        return None
    return lengths_of(tokenizer, max_tokens)


def _check_files(path: str, form: str | None, tokenizer: str | None, max_tokens: int | None, as_json: bool) -> None:
    from mig_spark.export.check import check_files, describe_check
    from mig_spark.export.write import format_named

    with failure_told(as_json, None):
        if form is None:
            raise InputError("--check: say which format the files should have: --to FORMAT")
        done = check_files(path, format_named(form), _lengths(tokenizer, max_tokens))
    click.echo(describe_check(done, form))
    if as_json:
        click.echo(json.dumps(done.to_dict()))
    if done.problems:
        sys.exit(1)


for _name in STAGES:
    if _name not in cli.commands:
        _add_stage(_name)


@cli.command()
@click.option("--output", default="mig-quickstart", show_default=True, metavar="DIR", help="Where everything goes.")
@click.option("--budget", default=100, show_default=True, type=click.IntRange(min=0), help="Rows to select.")
@click.option("--json", "as_json", is_flag=True, help="Print the run as JSON, as stdout's last line.")
def quickstart(output: str, budget: int, as_json: bool) -> None:
    """Run everything on the bundled sample: no data, no cluster, no model hub needed.

    Its config is written beside the result, for explain, compare and the other commands that want one.
    """
    import yaml

    from mig_spark.data import sample_paths
    from mig_spark.lakehouse.files import write_lines
    from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM

    plain = {
        "pool": {"path": [str(p) for p in sample_paths()]},
        "output": {"path": str(Path(output).absolute())},
        "select": {"budget": budget},
        "spark": {"jvm_options": SHORT_RUN_JVM, "conf": SHORT_RUN_CONF},
    }
    run_stages(build_config(plain, where="quickstart"), tuple(STAGES), as_json=as_json)
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    write_lines(["# What mig-spark quickstart ran.", text.rstrip("\n")], f"{output}/config.yaml")
    if not as_json:
        click.echo(_next_steps(output))


def _next_steps(output: str) -> str:
    return (
        "\nWhat to do next\n"
        f"  look:            open {output}/report.html in a browser\n"
        f"  why this row:    mig-spark explain {output}/config.yaml --id ID  (the report has ids)\n"
        f"  beside chance:   mig-spark compare selection strategy:random --config {output}/config.yaml\n"
        "  your own data:   mig-spark init PATH, look at config.yaml, then mig-spark run config.yaml\n"
        "  from Python:     from mig_spark import select  (README, section Python)"
    )


@cli.command(epilog="Example: mig-spark explain config.yaml --id row-17 --id row-99")
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--id", "ids", multiple=True, required=True, metavar="ID", help="The row. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a row instead.")
def explain(config: str, overrides: Sequence[str], ids: Sequence[str], as_json: bool) -> None:
    """Say why rows were selected, passed over, or never came so far.

    A selected row: its rank, its gain, what each label added, and what had covered it. A row passed over: the pick that
    it came nearest to, by how much it was outdone, the score or labels that would have taken it, and what covers its
    labels in the end. Any other: where it went.
    """
    from dataclasses import asdict

    from mig_spark.explain import describe, explain_rows
    from mig_spark.lakehouse.session import open_session

    settings = read_config(config, overrides)
    with open_session(settings.spark) as session:
        found = explain_rows(session.spark, settings, ids)
    click.echo("\n".join(json.dumps(asdict(one)) for one in found) if as_json else describe(found))


@cli.command()
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--last", default=20, show_default=True, type=click.IntRange(min=1), metavar="N", help="How many.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a run instead.")
def runs(config: str, overrides: Sequence[str], last: int, as_json: bool) -> None:
    """List the runs on record, newest first: when, how long, what came out, what endpoints were asked.

    Money is told where CONFIG has a price for the endpoints. Of a run that did not finish annotating, what was asked by
    tasks that had ended is told.
    """
    from mig_spark.curation.history import describe_runs, past_runs, price_of
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    settings = read_config(config, overrides)
    with open_session(settings.spark) as session:
        found = past_runs(Store(session.spark, settings.output), last, price=price_of(settings))
    click.echo("\n".join(json.dumps(run.to_dict()) for run in found) if as_json else describe_runs(found))


@cli.command(epilog="Example: mig-spark tune config.yaml")
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as a JSON object instead.")
def tune(config: str, overrides: Sequence[str], as_json: bool) -> None:
    """Say what `auto` would choose for graph.threshold and select.phi.b, with the evidence, and the lines to paste.

    So for select.norm where that is auto, and with select.target how near to it a selection would come. The pool has to
    be annotated; nothing is written.
    """
    from mig_spark.lakehouse.session import open_session
    from mig_spark.tune import describe_tuned
    from mig_spark.tune import tune as tune_pool

    settings = read_config(config, overrides)
    with open_session(settings.spark) as session:
        found = tune_pool(session.spark, settings)
    click.echo(json.dumps(found.to_dict()) if as_json else describe_tuned(found))


@cli.command(epilog="Example: mig-spark evaluate config.yaml --set evaluate.stratum=task")
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as a JSON object instead.")
def evaluate(config: str, overrides: Sequence[str], as_json: bool) -> None:
    """Compare the config's strategy with random selections and with other strategies, by what none of them optimises.

    Selections are made from a sample of the annotated pool, and prompts that were kept back look for the nearest
    selected one; with evaluate.train, a small language model learns from each selection. The table `evidence` has the
    result, and the next report shows it.
    """
    from mig_spark.evaluate import describe_evidence
    from mig_spark.evaluate import evaluate as evaluate_config
    from mig_spark.lakehouse.session import open_session

    settings = read_config(config, overrides)
    with open_session(settings.spark) as session:
        found = evaluate_config(session.spark, settings)
    click.echo(json.dumps(found.to_dict()) if as_json else describe_evidence(found))


@cli.command(epilog="Example: mig-spark compare selection strategy:random --config config.yaml --page compared.html")
@click.argument("a")
@click.argument("b")
@click.option("--config", "config_path", required=True, metavar="CONFIG", help="Says where the tables are.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON instead.")
@click.option("--page", metavar="FILE.html", help="Write it as a page too, with some of the rows in one alone.")
def compare(a: str, b: str, config_path: str, overrides: Sequence[str], as_json: bool, page: str | None) -> None:
    """Compare two selections: rows in common, why the others are in one alone, what each of them covers.

    A and B are each the id of a run; `selection`, the one published last; `strategy:NAME`, what that strategy takes of
    the annotated pool by the config's budget and its other keys of `select` that it goes by, computed now with no table
    written ('strategy:{kind: top, by: labels}' gives it options); or a list of ids in order of rank: a file, a folder
    or a table with `id`.
    """
    from mig_spark.compare import compare_selections, describe_comparison, write_comparison
    from mig_spark.lakehouse.session import open_session

    settings = read_config(config_path, overrides)
    with open_session(settings.spark) as session:
        found = compare_selections(session.spark, settings, a, b)
        click.echo(json.dumps(found.to_dict()) if as_json else describe_comparison(found))
        if page is not None:
            written = write_comparison(session.spark, settings, found, page)
            if not as_json:
                click.echo(f"page  {written}")


@cli.command()
@click.argument("run_id")
@click.option("--config", "config_path", required=True, metavar="CONFIG", help="Says where the tables are.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the record as JSON instead.")
def show(run_id: str, config_path: str, overrides: Sequence[str], as_json: bool) -> None:
    """Show all that is on record of one run: times, counts, certificate, what its config changed."""
    from mig_spark.curation.history import describe_run, past_runs, price_of
    from mig_spark.lakehouse.session import open_session
    from mig_spark.lakehouse.tables import Store

    settings = read_config(config_path, overrides)
    with open_session(settings.spark) as session:
        found = past_runs(Store(session.spark, settings.output), run_id=run_id, price=price_of(settings))
    click.echo("\n".join(json.dumps(run.to_dict()) if as_json else describe_run(run) for run in found))


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

    config = read_config(config_path, overrides)
    with open_session(config.spark) as session:
        done = replay_run(session.spark, config, run_id, from_source=from_source)
    click.echo(describe_replay(done))
    if as_json:
        click.echo(json.dumps(done.to_dict()))
    if not done.same:
        sys.exit(1)


@cli.command()
@click.argument("config", required=False, type=click.Path(dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a config value. Repeatable.")
def doctor(config: str | None, overrides: Sequence[str]) -> None:
    """Check that everything is there that a run needs; exit code 1 where something is not.

    Python, Java, Spark, Delta, GraphFrames, memory, the executors' Python and clock; with CONFIG also its source, its
    output and its models. Nothing is kept.
    """
    from mig_spark.doctor import describe_finding, examine

    if config is None and overrides:
        raise click.UsageError("--set changes a CONFIG, and none is given")
    bad = 0
    for finding in examine(read_config(config, overrides) if config else None):
        click.echo(describe_finding(finding))
        bad += finding.good is False
    if bad:
        click.echo(f"{bad} thing{'' if bad == 1 else 's'} to mend")
        sys.exit(1)
    click.echo("everything that a run needs is there")


@cli.command(epilog="Example: mig-spark init data/pool.jsonl --out config.yaml")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--out", default="config.yaml", show_default=True, metavar="FILE", help="Where the config goes.")
@click.option("--output", metavar="DIR", help="output.path of the config. Default: mig- and the pool's name.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="ROLE=KEY",
    help="Your key for a role, where it has another name than those known, e.g. prompt=q. Repeatable.",
)
@click.option("--force", is_flag=True, help="Replace the file, where there is one.")
def init(paths: Sequence[str], out: str, output: str | None, columns: Sequence[str], force: bool) -> None:
    """Look at your pool and write a first config for it, with the reason for each choice.

    PATH is a file, a folder or a glob of JSON lines, JSON arrays (gzipped or not) or Parquet, which Python reads; or a
    table of Delta or Iceberg, for which Spark is started.
    """
    from mig_spark.starter import describe_survey, next_commands, write_starter

    named = dict(text.partition("=")[::2] for text in columns)
    if wrong := [text for text in columns if "=" not in text]:
        raise click.UsageError(f"--column {wrong[0]}: write it as ROLE=KEY, for example --column prompt=question")
    survey, config = write_starter(paths, out, columns=named, output=output, force=force)
    click.echo(describe_survey(survey, config))
    click.echo(f"  written      {out}\n{next_commands(out)}")


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

    settings = read_config(config, overrides)
    with open_session(settings.spark) as session:
        done = induce_vocabulary(Store(session.spark, settings.output), settings, path=out)
    click.echo(f"  {len(done['labels']):,} labels of {done['clusters']:,} clusters of {done['rows']:,} rows in {out}")
