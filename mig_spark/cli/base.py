"""The group of commands, its entry point, and what several commands share: reading the config, running stages, telling
failures."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NoReturn

import click

from mig_spark.config import Config, SparkConfig, load_config, parse_config
from mig_spark.errors import MigError
from mig_spark.lakehouse.files import is_remote, local_path, read_bytes
from mig_spark.lakehouse.live_line import LINE
from mig_spark.scrub import Scrubbed, scrub

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Commands(click.Group):
    """Commands whose line in the list is the first sentence of their help, never cut."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """See click."""
        cmd.short_help = re.split(r"\.(?=\s|$)", " ".join((cmd.help or "").split()))[0]
        super().add_command(cmd, name)


class PicksKinds(click.Command):
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
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="MIG_SPARK_LOG_FORMAT",
    help="json: each line on stderr an object with time, level, logger, message, and numbers of progress; also by "
    "MIG_SPARK_LOG_FORMAT.",
)
def cli(verbose: bool, quiet: bool, log_format: str) -> None:
    """Select the rows of an instruction-tuning pool that carry the most information (MIG), exactly, with Spark.

    First time: mig-spark quickstart. Your own pool: mig-spark init PATH, then mig-spark run config.yaml.
    """
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    _set_up_logging(level, as_json=log_format == "json")


class _JsonLines(Scrubbed):
    """Each record as an object in one line; a line of progress has its numbers too."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging; without secrets."""
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created))
        told = {"time": when, "level": record.levelname, "logger": record.name, "message": super().format(record)}
        numbers = getattr(record, "progress", None)
        return json.dumps(told if numbers is None else {**told, "progress": numbers})


class _BesideTheLine(logging.StreamHandler):  # type: ignore[type-arg]
    """A handler that first erases the line of progress."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging."""
        LINE.erase()
        super().emit(record)


def _set_up_logging(level: int, *, as_json: bool = False) -> None:
    handler = _BesideTheLine(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else Scrubbed("%(asctime)s  %(message)s", "%H:%M:%S"))
    if as_json:
        LINE.is_live = False
    root = logging.getLogger("mig_spark")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level)
    # py4j tells a broken connection to the JVM through the root logger, with a stack trace for each call; what has
    # happened is told once (lakehouse/jvm.py)
    others = logging.StreamHandler(sys.stderr)
    others.addFilter(lambda record: "py4j" not in record.pathname)
    logging.getLogger().handlers[:] = [others]


def stage_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument CONFIG and the options that every stage has."""
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


def run_stages(
    config: Config,
    stages: Sequence[str],
    *,
    as_json: bool,
    resume: bool = True,
    fresh: bool | None = None,
    run_id: str | None = None,
) -> dict[str, Any]:
    """Run stages in the session of the config and print the summary; see `pipeline.run_pipeline`.

    Args:
        as_json: print the run as one line of JSON too, also where it failed.
    """
    from mig_spark.ingest.sources import is_small_pool
    from mig_spark.lakehouse.session import for_small_pool, open_session

    # both take seconds, and a JVM that starts is waited for
    importing = threading.Thread(target=_import_stages, daemon=True)
    importing.start()
    with failure_told(as_json, run_id), contextlib.ExitStack() as until_done:
        spark = for_small_pool(config.spark) if is_small_pool(config.pool) else config.spark
        session = until_done.enter_context(open_session(spark))
        importing.join()
        from mig_spark.pipeline import run_pipeline
        from mig_spark.selection.targets import without_scale
        from mig_spark.summary import summarise

        done = run_pipeline(session.spark, config, stages, resume=resume, fresh=fresh, run_id=run_id)
    click.echo(summarise(done, stages))
    if as_json:
        plain = {k: v for k, v in done.items() if k not in ("random_curve", "config")}
        plain["certificate"] = without_scale(plain["certificate"])
        click.echo(json.dumps({**plain, "status": "ok", "exit_code": 0}))
    return done


def _import_stages() -> None:
    """What cannot be imported is told by whoever needs it."""
    with contextlib.suppress(Exception):
        importlib.import_module("mig_spark.pipeline")


def loaded_config(path: str, overrides: Sequence[str], as_json: bool, run_id: str | None) -> Config:
    """The config at a path; where it cannot be used, that is told as JSON too if `as_json`."""
    from mig_spark.lakehouse.runs import check_run_id

    with failure_told(as_json, run_id):
        if run_id is not None:
            check_run_id(run_id)
        return read_config(path, overrides)


def read_config(path: str, overrides: Sequence[str]) -> Config:
    """The config, from wherever Spark reads where this is a platform, which has the credentials."""
    if not is_remote(path):
        return load_config(local_path(path), overrides)
    from mig_spark.lakehouse.session import get_session, is_managed

    # the platform's own, which stays
    spark = get_session(SparkConfig()).spark if is_managed() else None
    return parse_config(read_bytes(path, spark), overrides, where=path)


#: The exit code of what was stopped by hand.
STOPPED = 130


@contextlib.contextmanager
def failure_told(as_json: bool, run_id: str | None) -> Iterator[None]:
    """A scheduler reads the last line of stdout, also of a run that failed or could not begin."""
    try:
        yield
    except MigError as e:
        if as_json:
            # before the last line, also where a launcher brings both streams into one
            _tell(e)
            told = {"run_id": e.run_id or run_id, "status": "failed", "error": str(e), "kind": type(e).__name__}
            click.echo(json.dumps({**told, "exit_code": e.exit_code}))
        raise
    except KeyboardInterrupt as e:
        if as_json:
            _tell_stop(e)
            known = getattr(e, "run_id", None) or run_id
            click.echo(json.dumps({"run_id": known, "status": "stopped", "exit_code": STOPPED}))
        raise
    except Exception as e:
        # an error that nobody foresaw: whoever mends it needs the stack trace, and a scheduler the last line
        if as_json and not isinstance(e, click.ClickException | click.exceptions.Exit | click.Abort):
            print_trace(type(e), e, e.__traceback__)
            said = scrub("".join(traceback.format_exception_only(type(e), e)).strip())
            told = {"run_id": getattr(e, "run_id", None) or run_id, "status": "failed", "error": said}
            click.echo(json.dumps({**told, "kind": type(e).__name__, "exit_code": 1}))
            sys.exit(1)
        raise


def main(args: Sequence[str] | None = None) -> None:
    """Entry point: errors that a user can cause end in one line on stderr and exit code 2."""
    sys.excepthook = print_trace
    try:
        with _sigterm_as_ctrl_c():
            code = cli.main(args=list(args) if args is not None else None, standalone_mode=False)
    except MigError as e:
        end(e)
    except click.ClickException as e:
        e.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt) as stopped:
        _tell_stop(stopped)
        sys.exit(STOPPED)
    if code:
        # a clean end is a return: job runners on managed platforms take any SystemExit, 0 included, for a failure
        sys.exit(code)


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Within a `with` block, SIGTERM, by which schedulers and containers stop a process, does what Ctrl-C does: jobs
    are cancelled, the lease is given back, and the last line says that the run was stopped. A handler that somebody
    else has set stays, and outside the main thread, where Python takes no signals, nothing is changed."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def print_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The stack trace of an error that nobody foresaw, without secrets."""
    click.echo(scrub("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


def end(error: MigError) -> NoReturn:
    """Print the error as one line on stderr and exit with its code."""
    _tell(error)
    sys.exit(error.exit_code)


def _tell(error: MigError) -> None:
    """Print an error as one line on stderr, once."""
    if not error.told:
        error.told = True
        click.echo(f"mig-spark: {' '.join(str(error).split())}", err=True)


def _tell_stop(stop: BaseException) -> None:
    """The same of a stop by hand; click makes another exception of the one that it was."""
    first = stop.__cause__ if isinstance(stop, click.Abort) and stop.__cause__ is not None else stop
    if "told" not in vars(first):
        vars(first)["told"] = True
        click.echo("mig-spark: stopped", err=True)
