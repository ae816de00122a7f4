"""The command line as a user meets it, as far as it goes without a JVM."""

from __future__ import annotations

import json
import logging
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from mig_spark.cli import cli, main
from mig_spark.cli.base import failure_told
from mig_spark.cli.lists import tell_unused_model
from mig_spark.config.describe import summary
from mig_spark.curation.stages import STAGES
from mig_spark.plugins import SCORERS, TAGGERS
from mig_spark.sample import default_out

ROOT = Path(__file__).parents[2]


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys, monkeypatch):
    """A command line in this process, as its entry point runs it; a process each would take a second and more."""
    logger = logging.getLogger("mig_spark")
    before = logger.handlers[:], logger.propagate, logger.level
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # main sets its own; what was there comes back

    def call(*args, cwd=None, script=None):
        if cwd is not None:
            monkeypatch.chdir(cwd)
        capsys.readouterr()
        code = 0
        try:
            if script is None:
                main(args)
            else:
                monkeypatch.setattr(sys, "argv", [str(script), *args])
                runpy.run_path(str(script), run_name="__main__")
        except SystemExit as e:
            code = e.code
        return Done(code, *capsys.readouterr())

    yield call
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def test_the_module_is_a_program():
    done = subprocess.run([sys.executable, "-m", "mig_spark.cli", "run", "none.yaml"], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mig-spark: no config file at none.yaml")
    assert len(done.stderr.splitlines()) == 1


def test_config_prints_a_config(run):
    done = run("config")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["select"]["budget"] == 1000


def test_the_last_line_is_json_also_where_a_launcher_brings_both_streams_into_one(tmp_path):
    (tmp_path / "c.yaml").write_text("pool: {path: x}\noutput: {path: y}\nselct: 3\n")
    command = [sys.executable, str(ROOT / "jobs" / "curate.py"), "--config", "c.yaml", "--run-id", "j1"]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    said, told = done.stdout.splitlines()
    assert (done.returncode, said.split(":")[0]) == (2, "mig-spark")
    assert json.loads(told)["run_id"] == "j1"


def test_sigterm_does_what_ctrl_c_does_and_is_the_callers_again_afterwards(tmp_path):
    script = tmp_path / "wait.py"
    script.write_text(
        "import signal, sys, time\nfrom mig_spark.cli import cli, main\n"
        "@cli.command()\ndef wait():\n    print('waits', flush=True)\n    time.sleep(60)\n"
        "main(['config', '--schema'])\n"
        "assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL\nmain(['wait'])\n"
    )
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.stdout.readline() not in ("waits\n", ""):
            pass
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said.strip()) == (130, "mig-spark: stopped")


def test_a_run_that_is_stopped_by_hand_tells_a_scheduler_so(capsys):
    stopped = KeyboardInterrupt()
    vars(stopped)["run_id"] = "r1"
    with pytest.raises(KeyboardInterrupt), failure_told(True, None):
        raise stopped
    with pytest.raises(KeyboardInterrupt), failure_told(True, "mine"):
        raise KeyboardInterrupt
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told == [{"run_id": name, "status": "stopped", "exit_code": 130} for name in ("r1", "mine")]
    with pytest.raises(KeyboardInterrupt), failure_told(False, "mine"):
        raise KeyboardInterrupt
    assert capsys.readouterr().out == ""


def test_a_crash_tells_a_scheduler_so_after_its_stack_trace(capsys):
    with pytest.raises(SystemExit) as ended, failure_told(True, "mine"):
        raise ZeroDivisionError("by s3://user:secret@host/a")
    assert ended.value.code == 1
    told = capsys.readouterr()
    assert "Traceback (most recent call last)" in told.err
    assert "ZeroDivisionError: by s3://" in told.err
    assert json.loads(told.out) == {
        "run_id": "mine", "status": "failed", "error": told.err.strip().splitlines()[-1],
        "kind": "ZeroDivisionError", "exit_code": 1,
    }  # fmt: skip
    assert "secret" not in told.out + told.err
    with pytest.raises(ZeroDivisionError), failure_told(False, "mine"):
        raise ZeroDivisionError
    with pytest.raises(click.UsageError), failure_told(True, "mine"):
        raise click.UsageError("no such option")
    assert capsys.readouterr().out == ""


def test_config_schema_is_json(run):
    assert "select" in json.loads(run("config", "--schema").stdout)["properties"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "none.yaml"], "no config file at none.yaml"),
        (["run", "file:///none.yaml"], "no config file at /none.yaml"),
        (["run", "nosuch://host/none.yaml"], "cannot read nosuch://host/none.yaml: "),
        (["run"], "Missing argument 'CONFIG'"),
        (["run", "none.yaml", "--run-id", "../x"], "run id '../x': it stands in names of files"),
        (["select", "none.yaml", "--run-id", ".."], "run id '..': "),
        (["rum"], "No such command 'rum'"),
        (["sample", "x.jsonl", "--out", "y.jsonl"], "Missing option '-n'"),
        (["sample", "x.jsonl", "--out", "y.jsonl", "-n", "5", "--phi-b", "2"], "phi.b = 2.0"),
        (
            ["sample", "x.jsonl", "--out", "y.jsonl", "-n", "5", "--sim-threshold", "7"],
            "7.0 is not in the range -1<=x<=1",
        ),
        (
            ["sample", "none.jsonl", "--out", "y.jsonl", "-n", "5", "--phi-alpha", "3"],
            "--phi-alpha: not used, for --phi-type pow",
        ),
        (
            ["sample", "none.jsonl", "--out", "y.jsonl", "-n", "5", "--seed", "3"],
            "--seed: not used, for --sampler-type mig",
        ),
        (["sample", "none.jsonl", "--out", "y.jsonl", "-n", "5"], "mig-spark: nothing at none.jsonl (as a file, "),
        (["verify", "--config", "c.yaml", "--norm", "--gain", "exact"], "leave out --norm, --gain"),
        (["verify", "ids.jsonl", "--pool", "x.jsonl", "--set", "seed=1"], "--set overrides a value of --config"),
    ],
)
def test_errors_are_one_clear_line_and_exit_code_2(args, words, tmp_path, run):
    done = run(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_typo_in_a_config_names_the_key(tmp_path, run):
    (tmp_path / "c.yaml").write_text("pool: {path: x}\noutput: {path: y}\nselect: {bugdet: 3}\n")
    done = run("run", "c.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "mig-spark: c.yaml: unknown key 'select.bugdet', did you mean 'budget'? (see `mig-spark config`)"
    ]


def test_every_stage_is_a_command_and_help_waits_for_no_library():
    assert set(STAGES) <= set(cli.commands)
    code = (
        "import sys, mig_spark.cli; heavy = {'pyspark', 'torch', 'numpy', 'numba', 'pyarrow'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_command_and_option_has_help():
    for name, command in cli.commands.items():
        assert command.help, name
        for option in command.params:
            if option.param_type_name == "option" and option.name != "embedding_model":
                assert option.help or option.name in ("phi_b", "phi_type", "gain", "engine", "sampler_type"), (
                    option.name
                )


def test_the_help_of_annotate_lists_every_kind_and_what_it_is(run):
    said = " ".join(run("annotate", "--help").stdout.split())
    for family in (TAGGERS, SCORERS):
        assert f"annotate.{family.role}:" in said
        for kind, model in family.all().items():
            assert f" {kind} {summary(model)}" in said


@pytest.mark.parametrize("job", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.stem)
def test_every_job_calls_a_command_that_exists(job, run):
    command = job.read_text().split('job("')[1].split('"')[0]
    assert command in cli.commands
    done = run("--config", "none.yaml", script=job)
    assert done.returncode == 2
    assert "no config file at none.yaml" in done.stderr


def test_there_is_a_job_for_every_stage_and_one_for_all():
    assert len(list((ROOT / "jobs").glob("*.py"))) == 9


def sample_options(*args):
    """What the command line of `sample` is read as; nothing is run."""
    return cli.commands["sample"].make_context("sample", list(args)).params


def test_the_published_tools_own_command_line_is_taken(caplog):
    line = (
        "pool.jsonl --out o.jsonl --num-sample 50 --valid-tag-path tags.json --label-graph-type sim "
        "--embedding-model m --sampler-type mig --batch-size 32768"
    )
    given = sample_options(*line.split())
    short = sample_options("pool.jsonl", "--out", "o.jsonl", "-n", "50")
    assert (given["src"], given["out"], given["budget"]) == (("pool.jsonl",), "o.jsonl", 50)
    assert (given["valid_tag_path"], given["embedding_model"], given["sampler_type"]) == ("tags.json", "m", "mig")
    assert given.keys() == short.keys()
    assert short["budget"] == sample_options("pool.jsonl", "--num", "50")["budget"] == 50
    assert "--batch-size 32768 is not used" in caplog.text


def test_a_model_beside_edges_of_ones_own_is_told_to_be_unused(caplog):
    for args, told in ([], False), (["--embedding-model", "m"], True):
        caplog.clear()
        line = ["pool.jsonl", "-n", "5", "--label-graph", "edges.jsonl", *args]
        with cli.commands["sample"].make_context("sample", line) as context:
            tell_unused_model(context.params)
        assert ("--embedding-model is not used" in caplog.text) == told


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--label-graph-type", "knn"], "'knn': only 'sim' is here"),
        (["--load-from", "graph.pkl"], "'graph.pkl' would be a pickle"),
    ],
)
def test_what_is_not_taken_over_from_the_published_tool_is_refused_in_words(args, words):
    with pytest.raises(click.BadParameter, match=words):
        sample_options("pool.jsonl", "-n", "5", *args)


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("pool.jsonl", "pool-sampled-7.jsonl"),
        ("a/b/pool.v2.json.gz", "pool.v2-sampled-7.jsonl"),
        ("s3://bucket/tables/pool/", "pool-sampled-7.jsonl"),
        ("/", "_pool-sampled-7.jsonl"),
        ("elsewhere/part-*.jsonl", "part-sampled-7.jsonl"),
        ("*.jsonl", "_pool-sampled-7.jsonl"),
        (".", "_pool-sampled-7.jsonl"),
    ],
)
def test_where_the_sample_goes_when_nothing_is_said(source, out):
    assert sample_options(source, "-n", "7")["out"] is None
    assert default_out([source], 7) == out


def test_the_list_of_commands_cuts_no_sentence():
    shown = " ".join(CliRunner().invoke(cli, ["--help"], terminal_width=100).output.partition("Commands:")[2].split())
    assert "Write report.html from the tables" in shown
    assert "..." not in shown
    for command in cli.commands.values():
        assert command.short_help
        assert " ".join(command.help.split()).startswith(command.short_help)


def test_the_config_of_the_quickstart_is_there_for_other_commands(run, tmp_path, monkeypatch):
    from mig_spark.cli import flow
    from mig_spark.config import load_config

    ran = []
    monkeypatch.setattr(flow, "run_stages", lambda config, stages, *, as_json: ran.append(config))
    done = run("quickstart", "--budget", "7", cwd=tmp_path)
    assert done.returncode == 0
    assert "mig-spark explain mig-quickstart/config.yaml --id ID" in done.stdout
    written = load_config(str(tmp_path / "mig-quickstart" / "config.yaml"))
    assert written.to_dict() == ran[0].to_dict()
    assert written.select.budget == 7
    # a program reads the last line, which is the run's
    assert run("quickstart", "--json", "--output", "other", cwd=tmp_path).stdout == ""
    assert (tmp_path / "other" / "config.yaml").is_file()
