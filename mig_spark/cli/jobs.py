"""What spark-submit and platforms that start a wheel call: a stage with its config, the run as JSON."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from mig_spark.cli.base import end, failure_told, main
from mig_spark.config import check_overrides
from mig_spark.curation.stages import STAGES
from mig_spark.errors import ConfigError, MigError


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
        with failure_told(True, given.run_id):
            more = _split(given.overrides)
            if given.allow_overrides.strip() != "*":
                check_overrides(more, filter(None, given.allow_overrides.split(",")))
    except MigError as e:
        end(e)
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
