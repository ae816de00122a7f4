"""A master, two workers, spark-submit: the jobs as on a cluster. A worker that dies on the way changes nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from oracles.dense import Row, dense_greedy, dense_propagation

ROOT = Path(__file__).parents[2]
STANDALONE = ROOT / "deploy" / "standalone"
LABELS = [f"topic {k:02d}" for k in range(12)]
EDGES = [(0, 1, 0.95), (4, 7, 0.93)]
BUDGET = 15

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


def pool_rows():
    return [
        Row(f"row-{k:03d}", tuple(sorted({(k * 5) % 12, (k * 7 + 3) % 12})), 1.0 + (k * 37 % 101) / 10)
        for k in range(120)
    ]


def free_port():
    """A port that is free with the six after it, for the master, the workers and their pages."""
    return next(first for first in range(21077, 29077, 100) if all(is_free(first + k) for k in range(7)))


def is_free(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


@pytest.fixture
def cluster(tmp_path):
    env = {**os.environ, "PYTHON": sys.executable, "PORT": str(free_port())}
    env.pop("SPARK_HOME", None)
    folder = tmp_path / "cluster"
    subprocess.run([str(STANDALONE / "start.sh"), str(folder)], check=True, env=env, timeout=400)
    pids = [int(p.read_text()) for p in folder.glob("*.pid")]
    assert len(pids) == 3
    assert all(map(is_daemon, pids))
    yield folder, env
    # a narrow terminal must not hide from the script what it is to stop
    subprocess.run([str(STANDALONE / "stop.sh"), str(folder)], check=True, env={**env, "COLUMNS": "80"}, timeout=120)
    assert not any(map(is_daemon, pids))


def is_daemon(pid):
    """Whether the process is a master or worker that lives; a dead one that nobody has waited for has no command."""
    command = Path(f"/proc/{pid}/cmdline")
    return command.exists() and b"org.apache.spark.deploy" in command.read_bytes()


@pytest.fixture
def config(tmp_path):
    records = [
        {
            "_id": r.key,
            "dialogs": [{"role": "user", "content": f"ask {r.key}"}, {"role": "assistant", "content": "answer"}],
            "annotation": {
                "instag": {"content": [LABELS[k] for k in r.labels]},
                "deita": {"quality_scores": [r.score], "complexity_scores": [1.0]},
            },
        }
        for r in pool_rows()
    ]
    (tmp_path / "pool.jsonl").write_text("\n".join(map(json.dumps, records)))
    edges = [{"src": LABELS[i], "dst": LABELS[j], "weight": w} for i, j, w in EDGES]
    (tmp_path / "edges.jsonl").write_text("\n".join(map(json.dumps, edges)))
    plain = {
        "pool": {"path": str(tmp_path / "pool.jsonl")},
        "output": {"path": str(tmp_path / "out")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges_path": str(tmp_path / "edges.jsonl"), "threshold": 0.9},
        "select": {"budget": BUDGET, "engine": "rounds", "block_rows": 40, "candidates": 10},
    }
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(plain))
    return path


def test_the_job_goes_on_when_a_worker_is_killed(cluster, config, tmp_path):
    folder, env = cluster
    job = subprocess.Popen(
        [str(STANDALONE / "submit.sh"), str(folder), str(ROOT / "jobs" / "curate.py"), "--config", str(config)],
        stdout=subprocess.PIPE, stderr=(tmp_path / "stderr.log").open("w"), text=True, env=env,
    )  # fmt: skip
    wait_until(lambda: (tmp_path / "out" / "tables" / "pool").exists() or job.poll() is not None)
    assert job.poll() is None, (tmp_path / "stderr.log").read_text()[-3000:]
    os.kill(int((folder / "worker1.pid").read_text()), signal.SIGKILL)
    out, _ = job.communicate(timeout=900)
    assert job.returncode == 0, (tmp_path / "stderr.log").read_text()[-3000:]

    want, _ = dense_greedy(pool_rows(), dense_propagation(len(LABELS), EDGES), BUDGET)
    lines = (tmp_path / "out" / "selection.jsonl").read_text().splitlines()
    assert [json.loads(line)["_id"] for line in lines] == want
    assert json.loads(out.splitlines()[-1])["counts"]["select"]["selected"] == BUDGET
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """The environment as it is shipped to EMR on EC2, without models: its archive and, for the driver, its folder."""
    folder = tmp_path_factory.mktemp("packed")
    archive = folder / "environment.tar.gz"
    env = {**os.environ, "EXTRAS": "", "DELTA": importlib.metadata.version("delta-spark"), "PYTHON": sys.executable}
    built = subprocess.run(
        [str(ROOT / "deploy" / "emr" / "build_env.sh"), str(archive)], env=env, capture_output=True, text=True
    )
    if "No matching distribution" in built.stderr or "Temporary failure in name resolution" in built.stderr:
        pytest.skip("no package index is reached, from which the environment is built")
    assert built.returncode == 0, built.stderr[-3000:]
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "environment", filter="fully_trusted")
    return archive, folder / "environment"


def test_the_packed_environment_runs_the_job(cluster, config, packed, tmp_path):
    folder, env = cluster
    archive, unpacked = packed
    shown = subprocess.run([str(unpacked / "bin" / "python"), "-m", "pip", "list"], capture_output=True, text=True)
    assert "mig-spark" in shown.stdout
    assert not {"pyspark", "torch"} & {line.split()[0] for line in shown.stdout.splitlines()}
    conf = {
        "spark.pyspark.python": "./environment/bin/python",
        "spark.pyspark.driver.python": f"{unpacked}/bin/python",
        # the config is read as from an object store: by Spark, with what the platform's session is configured with
        "spark.hadoop.fs.viewfs.mounttable.mig.link./data": tmp_path.as_uri(),
    }
    args = f"--archives {archive}#environment " + " ".join(f"--conf {k}={v}" for k, v in conf.items())
    job = [str(ROOT / "jobs" / "curate.py"), "--config", f"viewfs://mig/data/{config.name}"]
    job += ["--set", "select.engine=local"]
    done = subprocess.run(
        [str(STANDALONE / "submit.sh"), str(folder), *job],
        env={**env, "SUBMIT_ARGS": args}, cwd=tmp_path, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    want, _ = dense_greedy(pool_rows(), dense_propagation(len(LABELS), EDGES), BUDGET)
    lines = (tmp_path / "out" / "selection.jsonl").read_text().splitlines()
    assert [json.loads(line)["_id"] for line in lines] == want


def wait_until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)
