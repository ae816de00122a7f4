"""The commands of docs/tutorial.md, one after the other as a reader types them, in a folder and a JVM of their own."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mig_spark.data import sample_paths

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
#: What a reader does outside of the program.
BY_HAND = ("make setup", "source .venv/bin/activate", "head -n 3 chosen.jsonl")

#: Runs commands in one process, so that one JVM serves all; prints a line of JSON for each: exit code and output.
CALL = """
import json, sys
from click.testing import CliRunner
from mig_spark.cli import cli
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, open_session
with open_session(SparkConfig(jvm_options=SHORT_RUN_JVM, conf=SHORT_RUN_CONF)):
    for program, *args in json.load(sys.stdin):
        if program == "python":
            exec(args[1])
            continue
        if "ID" in args:
            args[args.index("ID")] = json.loads(open("chosen.jsonl", encoding="utf-8").readline())["id"]
        done = CliRunner().invoke(cli, args)
        print(json.dumps([done.exit_code, done.stdout + done.stderr]), flush=True)
"""


def lines() -> list[str]:
    prose = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
    return [line.strip() for line in prose.splitlines() if line.startswith("    ")]


def test_every_line_is_run_here_or_by_hand():
    assert [line for line in lines() if not line.startswith(("mig-spark ", "python "))] == list(BY_HAND)


def test_the_python_example_prints_what_it_says(capsys):
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})
    assert capsys.readouterr().out.strip() == code.splitlines()[-1].partition("# ")[2]


@pytest.mark.long
@pytest.mark.model
def test_the_commands_do_what_the_page_says(tmp_path):
    (tmp_path / "data").mkdir()
    # of the reader's own: thirty of the sample's chats
    rows = sample_paths()[0].read_bytes().splitlines(keepends=True)[:30]
    (tmp_path / "data" / "pool.jsonl").write_bytes(b"".join(rows))
    commands = [line for line in lines() if line not in BY_HAND]
    commands.append("mig-spark export sample.yaml --to messages --out again.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", CALL], input=json.dumps([shlex.split(line) for line in commands]), cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=2400, check=False,
    )  # fmt: skip
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    asked = [line for line in commands if line.startswith("mig-spark")]
    assert len(told) == len(asked), done.stderr[-3000:]
    failed = [(line, said) for line, (code, said) in zip(asked, told, strict=True) if code != 0]
    assert not failed
    said = dict(zip(asked, (text for _, text in told), strict=True))

    assert "517 rows" in said["mig-spark init general.jsonl tasks.json --out sample.yaml --output mig-sample"]
    out = tmp_path / "mig-sample"
    records = (out / "selection.jsonl").read_text(encoding="utf-8").splitlines()
    chosen = [json.loads(line) for line in (tmp_path / "chosen.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(records) == len(chosen) == 26
    assert [row["rank"] for row in chosen] == list(range(1, 27))
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!")
    assert f"{chosen[0]['id']}: selected" in said["mig-spark explain sample.yaml --id ID"]
    compared = said["mig-spark compare first exact --config sample.yaml"]
    assert 'config select.gain: "gradient" in A, "exact" in B' in compared
    beside = said["mig-spark compare selection strategy:random --config sample.yaml"]
    assert "A  selection, selected by run exact: 26 rows" in beside
    assert "B  strategy:random, chosen for this comparison: 26 rows" in beside
    runs = said["mig-spark runs sample.yaml"]
    assert "first" in runs
    assert "exact" in runs
    assert any((tmp_path / "train").rglob("*.jsonl"))
    # the last run over the sample brought the first selection back, and did no more than the page says
    assert "unchanged    ingest, screen, annotate, graph  (done" in said["mig-spark run sample.yaml"]
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "chosen.jsonl").read_bytes()
    assert (tmp_path / "mig-mine" / "report.html").is_file()
