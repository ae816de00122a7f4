"""The command line: one command a capability. The jobs call the same functions."""

from __future__ import annotations

from mig_spark.cli import flow, lists
from mig_spark.cli.base import cli, main
from mig_spark.cli.jobs import job, job_main

__all__ = ["cli", "flow", "job", "job_main", "lists", "main"]
