"""The command line as a user meets it, as far as it goes without a JVM."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mig_spark.cli import cli

ROOT = Path(__file__).parents[2]


def run(*args, cwd=None):
    return subprocess.run([sys.executable, "-m", "mig_spark.cli", *args], capture_output=True, text=True, check=False,
                          cwd=cwd)  # fmt: skip


def test_config_prints_a_config():
    done = run("config")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["select"]["budget"] == 1000


def test_config_schema_is_json():
    assert "select" in json.loads(run("config", "--schema").stdout)["properties"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "none.yaml"], "no config file at none.yaml"),
        (["run", "file:///none.yaml"], "no config file at /none.yaml"),
        (["run", "nosuch://host/none.yaml"], "cannot read nosuch://host/none.yaml: "),
        (["run"], "Missing argument 'CONFIG'"),
        (["rum"], "No such command 'rum'"),
        (["sample", "x.jsonl", "--out", "y.jsonl"], "Missing option '-n'"),
        (["sample", "x.jsonl", "--out", "y.jsonl", "-n", "5", "--phi-b", "2"], "phi.b = 2.0"),
    ],
)
def test_errors_are_one_clear_line_and_exit_code_2(args, words, tmp_path):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_typo_in_a_config_names_the_key(tmp_path):
    (tmp_path / "c.yaml").write_text("pool: {path: x}\noutput: {path: y}\nselect: {bugdet: 3}\n")
    done = run("run", "c.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "mig-spark: c.yaml: unknown key 'select.bugdet', did you mean 'budget'? (see `mig-spark config`)"
    ]


def test_every_command_and_option_has_help():
    for name, command in cli.commands.items():
        assert command.help, name
        for option in command.params:
            if option.param_type_name == "option" and option.name != "embedding_model":
                assert option.help or option.name in ("phi_b", "phi_type", "gain", "engine", "sampler_type"), (
                    option.name
                )


def test_every_job_calls_a_command_that_exists():
    jobs = sorted((ROOT / "jobs").glob("*.py"))
    assert len(jobs) == 7
    for job in jobs:
        command = job.read_text().split('job("')[1].split('"')[0]
        assert command in cli.commands
        done = subprocess.run([sys.executable, str(job), "--config", "none.yaml"], capture_output=True, text=True,
                              check=False)  # fmt: skip
        assert done.returncode == 2
        assert "no config file at none.yaml" in done.stderr
