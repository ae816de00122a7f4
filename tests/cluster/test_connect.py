"""Spark Connect: what is done there gives what classic Spark gives, table by table; what cannot be is told first."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyspark
import pytest
from connect_server import ConnectServer, connect_server
from fault_runs import Job, left_over, plain_config, records, results, write_pool

from oracles.dense import Row, dense_greedy, dense_propagation

pytest.importorskip("grpc", reason="grpcio, which Spark Connect needs, is not installed")
pytestmark = [
    pytest.mark.cluster, pytest.mark.long, pytest.mark.matrix,
    pytest.mark.skipif(pyspark.__version__ < "4", reason="the stages run on Spark Connect from Spark 4 on"),
]  # fmt: skip

SCRIPT = """
import json, sys
import numpy as np
from pyspark.sql import SparkSession
from mig_spark import LabelGraph, select_rows, SelectConfig
from mig_spark.errors import MigError
from mig_spark.kernels.labels.propagation import build_propagation
from mig_spark.labels.engines import choose_engine, compute_graph
from mig_spark.lakehouse.runtime import has_spark_context

rows, edges, n, budget = json.loads(open(sys.argv[1]).read())
spark = SparkSession.builder.remote(sys.argv[2]).getOrCreate()
out = {"classic": has_spark_context(spark), "engine": choose_engine(spark, "auto")}
try:
    choose_engine(spark, "graphframes")
except MigError as e:
    out["refused"] = str(e)

i, j, w = (np.array([e[k] for e in edges]) for k in range(3))
computed = compute_graph(spark, n, (i.astype(np.int32), j.astype(np.int32), w), engine=choose_engine(spark, "auto"))
out["components"] = computed.components.tolist()
graph = LabelGraph([f"{k:03d}" for k in range(n)], computed.neighbours.propagation("receiver"))
df = spark.createDataFrame(rows, "id string, labels array<string>, score double").repartition(3)
for engine in ("rounds", "local"):
    config = SelectConfig(budget=budget, engine=engine, block_rows=50, candidates=20, upper_bound=False)
    out[engine] = select_rows(df, graph, config).ids
print(json.dumps(out))
"""

FILES = """
import gzip, json, sys
from pyspark.sql import SparkSession
from mig_spark.errors import MigError
from mig_spark.lakehouse.local_files import LocalFiles
from mig_spark.lakehouse.server_files import ServerFiles

base, asked = sys.argv[2], json.loads(sys.argv[3])
spark = SparkSession.builder.remote(sys.argv[1]).getOrCreate()
server, local = ServerFiles(spark), LocalFiles()

def seen(files, path):
    found, named = files.find(path)
    return [[(f.path.replace("file:///", "file:/"), f.name, f.is_dir, f.is_dir or f.size) for f in found], named]

def inside(files, path):
    shown = [f for f in files.children(path) if not f.hidden and (f.is_dir or f.size)]
    return [(f.name, f.is_dir, f.is_dir or f.size, f.is_dir or f.modified) for f in shown]

out = {"find": [], "children": [], "exists": []}
for path in asked:
    out["find"].append([seen(server, f"file:{base}/{path}"), seen(local, f"{base}/{path}")])
    out["exists"].append([server.exists(f"file:{base}/{path}"), local.exists(f"{base}/{path}")])
for path in ("", "sub", "sub/deeper"):
    out["children"].append([inside(server, f"file:{base}/{path}"), inside(local, f"{base}/{path}")])
[one], _ = server.find(f"file:{base}/b.bin")
out["head"] = [list(server.head(one, 3)), list(server.read(f"file:{base}/b.bin"))]
out["large"] = []
for name in ("large.jsonl", "large.jsonl.gz"):
    [one], _ = server.find(f"file:{base}/{name}")
    head = server.head(one, 300)
    out["large"].append([one.size, (gzip.decompress(head) if name.endswith("gz") else head).decode()])
out["refused"] = []
for call in (lambda: server.read(f"file:{base}/none"), lambda: server.read(f"file:{base}/sub"),
             lambda: server.put(None, "s3://bucket/x"), lambda: server.find("nosuch://bucket/x")):
    try:
        call()
        out["refused"].append("")
    except MigError as e:
        out["refused"].append(str(e))
print(json.dumps(out))
"""


#: A session of somebody else in another thread, and ours beside it.
TWO_SESSIONS = """
import json, os, sys, threading
from pyspark.sql import SparkSession
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import open_session

address = sys.argv[1]
made, checked, others = threading.Event(), threading.Event(), []

def of_another():
    others.append(SparkSession.builder.remote(address).getOrCreate())
    made.set()
    checked.wait(120)
    others.append(others[0].range(3).count())
    with open_session() as session:
        inside = [type(p).__name__ for p in session.spark.client.get_retry_policies()]
        others.extend([session.owned, session.spark is others[0], inside])
    others.append([type(p).__name__ for p in others[0].client.get_retry_policies()])
    others.append(others[0].range(4).count())

thread = threading.Thread(target=of_another)
thread.start()
made.wait(120)
with open_session(SparkConfig(remote=address, conf={"spark.sql.shuffle.partitions": "3"})) as session:
    ours = [session.owned, session.spark.session_id != others[0].session_id, session.spark.range(5).count(),
            session.spark.conf.get("spark.sql.shuffle.partitions")]
checked.set()
thread.join()
print(json.dumps([ours, others[1:]]))
"""

#: A query that would not end, asked beside another when the run is stopped by hand.
STOPPED = """
import json, sys, threading
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.runtime import at_once
from mig_spark.lakehouse.session import open_session

both, told = threading.Barrier(2, timeout=60), []

def stop():
    both.wait()
    raise KeyboardInterrupt

def endless():
    both.wait()
    try:
        spark.range(10**15).selectExpr("sum(id % 7)").collect()
    except Exception as e:
        told.append(str(e))

with open_session(SparkConfig(remote=sys.argv[1])) as session:
    spark = session.spark
    try:
        at_once(spark, stop, endless)
    except KeyboardInterrupt:
        told.append(spark.range(5).count())
print(json.dumps(told))
"""

#: What a server of this process lets in, and what it leaves behind.
OWN_SERVER = """
import json, os, re
from pathlib import Path
from mig_spark.config import SparkConfig
from mig_spark.lakehouse.session import SHORT_RUN_CONF, SHORT_RUN_JVM, get_session, open_session

def listens():
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            local, _, state = line.split()[1:4]
            if state == "0A" and local.endswith(f":{15002:04X}"):
                found.add(local.partition(":")[0])
    return sorted(found)

os.environ["SPARK_REMOTE"] = "local[2]"
config = SparkConfig(jvm_options=SHORT_RUN_JVM, conf=SHORT_RUN_CONF, driver_memory="1g")
out = {}
for name in ("first", "second"):  # the JVM of the second is that of the first
    with open_session(config) as session:
        out[name] = [session.spark.range(5).count(), listens(), os.environ.get("SPARK_CONNECT_AUTHENTICATE_TOKEN")]
        from pyspark.sql.connect.client.core import DefaultChannelBuilder, SparkConnectClient
        stranger = SparkConnectClient(DefaultChannelBuilder("sc://127.0.0.1:15002"))
        try:
            stranger._analyze(method="spark_version")
            out[name].append("let in")
        except Exception as e:
            out[name].append(str(e))
        stranger.close()
    out[name].append(os.environ.get("SPARK_REMOTE"))
print(json.dumps(out))
"""

#: A server whose machine has lost its power: nothing comes any more, and no connection is closed.
SILENT_SERVER = """
import json, socket, sys, threading
from mig_spark.config import SparkConfig
from mig_spark.errors import MigError
from mig_spark.lakehouse import connect
from mig_spark.lakehouse.session import open_session

silent, port = threading.Event(), int(sys.argv[1].rpartition(":")[2])

def carry(a, b):
    while data := a.recv(65536):
        if silent.is_set():
            threading.Event().wait()
        b.sendall(data)

def serve(door):
    while True:
        mine, _ = door.accept()
        theirs = socket.create_connection(("127.0.0.1", port))
        for pair in ((mine, theirs), (theirs, mine)):
            threading.Thread(target=carry, args=pair, daemon=True).start()

door = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=serve, args=(door,), daemon=True).start()
connect._KEEPALIVE = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 2_000))
connect._OUTAGE = 2.0
said = ""
try:
    with open_session(SparkConfig(remote=f"sc://127.0.0.1:{door.getsockname()[1]}")) as session:
        session.spark.range(1).count()
        threading.Timer(3, silent.set).start()
        try:
            session.spark.sql("select reflect('java.lang.Thread', 'sleep', 600000L)").collect()
        except Exception:
            raise KeyError("what follows from it") from None
except MigError as e:
    said = str(e)
print(json.dumps(said), flush=True)
import os
os._exit(0)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConnectServer]:
    with connect_server(tmp_path_factory.mktemp("connect")) as running:
        yield running


def by(server: ConnectServer, folder: Path, **more: Any) -> dict[str, Any]:
    """`plain_config`, run by the server."""
    return {**plain_config(folder, **more), "spark": {"remote": server.address}}


def done(jobs: list[Job], folder: Path, config: dict[str, Any], *args: str) -> dict[str, Any]:
    """A run to its end, which is a good one."""
    jobs.append(Job(folder, config, *args))
    told = jobs[-1].end()
    assert told["code"] == 0, jobs[-1].said()[-3000:]
    return told


def mig_spark(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mig_spark.cli", *args], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable},
    )  # fmt: skip


def test_selection_and_propagation_are_those_of_classic_spark(run_script, server, tmp_path):
    rng = random.Random(8)
    rows = [
        Row(f"r{k:03d}", tuple(rng.sample(range(15), rng.randint(0, 4))), round(rng.uniform(0, 9), 2))
        for k in range(150)
    ]
    edges = [(0, 1, 0.95), (3, 7, 0.91), (7, 9, 0.97)]
    pool = tmp_path / "pool.json"
    pool.write_text(json.dumps([[(r.key, [f"{k:03d}" for k in r.labels], r.score) for r in rows], edges, 15, 30]))
    told = run_script(SCRIPT, str(pool), server.address)
    assert not told["classic"]
    assert told["engine"] == "kernel"
    assert "graph.engine: kernel" in told["refused"]

    want, _ = dense_greedy(rows, dense_propagation(15, edges), 30)
    assert told["rounds"] == want
    assert told["local"] == want
    assert told["components"] == [0, 0, 2, 3, 4, 5, 6, 3, 8, 3, 10, 11, 12, 13, 14]


def test_every_table_is_that_of_classic_spark_and_either_goes_on_with_it(server, jobs, tmp_path):
    """All stages: near duplicates, a record that is rejected, the vocabulary, two formats of export."""
    rows = records(60)
    write_pool(tmp_path / "in", [*rows, {**rows[5], "id": "copy", "prompt": f"{rows[5]['prompt']} again"}])
    (tmp_path / "in" / "bad.jsonl").write_text('{"prompt": \n')
    more = {"screen": {"near_duplicates": {"threshold": 0.6}}, "pool": {
        "path": str(tmp_path / "in"), "columns": {"labels": "labels", "score": "score"}}}  # fmt: skip
    classic = plain_config(tmp_path, **more, output={"path": str(tmp_path / "classic"), "exports": ["trl"]})
    remote = by(server, tmp_path, **more, output={"path": str(tmp_path / "remote"), "exports": ["trl"]})
    told = done(jobs, tmp_path, remote)
    assert not told["skipped"]
    assert told["counts"]["ingest"]["rejected"]
    done(jobs, tmp_path, classic)
    assert results(tmp_path / "remote") == results(tmp_path / "classic")
    made = {name: sorted((tmp_path / name / "exports").rglob("*.jsonl")) for name in ("remote", "classic")}
    assert [p.read_text() for p in made["remote"]] == [p.read_text() for p in made["classic"]] != []
    assert left_over(tmp_path / "remote") == ["exports"]

    # classic Spark takes over what was made through the server, and the other way round
    taken_over = done(jobs, tmp_path, {**classic, "output": remote["output"]})
    assert set(taken_over["skipped"]) == set(told["seconds"])
    write_pool(tmp_path / "in", [*rows, *records(70)[60:]])
    grown = {"mode": "incremental", "select": {**classic["select"], "budget": 20}}
    for config in (remote, classic):
        done(jobs, tmp_path, {**config, **grown})
    assert results(tmp_path / "remote") == results(tmp_path / "classic")

    path = tmp_path / "again.yaml"
    path.write_text(json.dumps({**remote, **grown}))
    for args in (["replay", told["run_id"]], ["explain", "--id", rows[5]["id"]], ["runs"], ["doctor"], ["tune"],
                 ["run", "--dry-run"], ["compare", "selection", "strategy:random"]):  # fmt: skip
        command, *rest = args
        given = [*rest, "--config", str(path)] if command in ("replay", "compare") else [str(path), *rest]
        found = mig_spark(command, *given)
        assert found.returncode == 0, f"{command}: {found.stdout[-1500:]} {found.stderr[-1500:]}"
    assert "Spark Connect" in mig_spark("doctor", str(path)).stdout


CATALOG = """
import json, sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.remote(sys.argv[1]).getOrCreate()
spark.sql(f"CREATE SCHEMA mig LOCATION '{sys.argv[2]}'")
print(json.dumps({}))
"""


def test_tables_of_a_catalog_are_those_of_a_folder(run_script, server, jobs, tmp_path):
    """The way that Databricks takes: tables by name alone, files in a folder."""
    write_pool(tmp_path / "in", records(40))
    run_script(CATALOG, server.address, str(tmp_path / "mig.db"))
    remote = by(server, tmp_path, output={"path": str(tmp_path / "files"), "database": "mig"})
    done(jobs, tmp_path, remote)
    done(jobs, tmp_path, plain_config(tmp_path))
    (tmp_path / "files" / "tables").symlink_to(tmp_path / "mig.db")
    assert results(tmp_path / "files") == results(tmp_path / "out")
    write_pool(tmp_path / "in", [*records(40)[:30], *records(50)[40:]])
    for config in (remote, plain_config(tmp_path)):
        done(jobs, tmp_path, {**config, "mode": "incremental"})
    assert results(tmp_path / "files") == results(tmp_path / "out")


def test_a_server_of_this_process(jobs, tmp_path):
    write_pool(tmp_path / "in", records(24))
    config = plain_config(tmp_path)
    done(jobs, tmp_path, {**config, "spark": {**config["spark"], "remote": "local[2]"}})
    assert len((tmp_path / "out" / "selection.jsonl").read_text().splitlines()) == 16
    assert "Failed to set" not in jobs[-1].said()


def killed_after_ingest(server: ConnectServer, jobs: list[Job], folder: Path, config: dict[str, Any]) -> Job:
    """A run under way whose server is killed once the first stage is on record."""
    jobs.append(Job(folder, config))
    jobs[-1].wait_for("ingest took", "wrote stages")
    server.kill()
    return jobs[-1]


@pytest.mark.faults
def test_a_server_that_dies_ends_the_run_in_one_line_and_the_next_run_goes_on(jobs, tmp_path):
    write_pool(tmp_path / "in", records(48))
    with connect_server(tmp_path) as server:
        config = by(server, tmp_path)
        job = killed_after_ingest(server, jobs, tmp_path, config)
        told = job.end()
        assert told["code"] == told["exit_code"] == 2
        assert "the Spark Connect server does not answer" in told["error"]
        said = job.said().splitlines()
        assert "Traceback" not in job.said(), job.said()[-3000:]
        assert [line for line in said if line.startswith("mig-spark: ")] == said[-1:] == [f"mig-spark: {told['error']}"]
        server.start()
        again = done(jobs, tmp_path, config)
        assert "ingest" in again["skipped"]
        assert left_over(tmp_path / "out") == []


@pytest.mark.faults
def test_a_server_that_is_started_again_is_told_and_the_next_run_goes_on(jobs, tmp_path):
    write_pool(tmp_path / "in", records(48))
    with connect_server(tmp_path) as server:
        config = by(server, tmp_path)
        job = killed_after_ingest(server, jobs, tmp_path, config)
        server.start()
        told = job.end()
        assert told["code"] == 2
        assert "was started again or has closed this session" in told["error"]
        assert "Traceback" not in job.said(), job.said()[-3000:]
        assert "ingest" in done(jobs, tmp_path, config)["skipped"]


def test_a_session_of_ours_is_new_and_that_of_another_stays_as_it_was(run_script, server):
    ours, others = run_script(TWO_SESSIONS, server.address)
    assert ours == [True, True, 5, "3"]
    assert others == [3, False, True, ["Patience"], ["DefaultPolicy"], 4]


def test_what_is_asked_when_a_run_is_stopped_by_hand_is_given_up(run_script, server):
    why, rows = run_script(STOPPED, server.address)
    assert "CANCELED" in why.upper()
    assert rows == 5


def test_a_server_of_this_process_listens_to_this_process_alone(run_script):
    told = run_script(OWN_SERVER)
    for rows, listens, token, stranger, remote in (told["first"], told["second"]):
        assert rows == 5
        assert listens in (["0100007F"], ["0000000000000000FFFF00000100007F"]), "127.0.0.1 alone"
        assert "authentica" in stranger.lower(), stranger
        assert (token, remote) == (None, "local[2]")


def test_a_server_of_which_nothing_comes_any_more_ends_the_run(run_script, server):
    assert "the Spark Connect server does not answer" in run_script(SILENT_SERVER, server.address)


def test_a_server_without_delta_is_told_in_one_line(jobs, tmp_path):
    write_pool(tmp_path / "in", records(8))
    with connect_server(tmp_path, delta=False) as server:
        job = Job(tmp_path, by(server, tmp_path))
        jobs.append(job)
        told = job.end()
    assert told["code"] == 2
    assert "no Delta" in told["error"]
    assert "Traceback" not in job.said(), job.said()[-3000:]
    assert not (tmp_path / "out").exists()


def test_a_server_that_does_not_see_the_output_is_told_first(jobs, tmp_path):
    for name in ("in", "out", "log"):
        (tmp_path / name).mkdir()
    write_pool(tmp_path / "in", records(8))
    hidden = f"mount -t tmpfs none {tmp_path / 'out'}"
    if subprocess.run(["unshare", "--mount", "sh", "-c", hidden], capture_output=True, check=False).returncode:
        pytest.skip("no leave to make a mount namespace here")
    with connect_server(tmp_path / "log", before=hidden) as server:
        job = Job(tmp_path, by(server, tmp_path))
        jobs.append(job)
        told = job.end()
    assert told["code"] == 2
    assert "does not see what this process writes there" in told["error"]
    assert not list((tmp_path / "out").iterdir())


def test_an_address_where_no_server_is(tmp_path):
    write_pool(tmp_path / "in", records(8))
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({**plain_config(tmp_path), "spark": {"remote": "sc://127.0.0.1:9"}}))
    found = mig_spark("run", str(path))
    assert found.returncode == 2
    assert "sc://127.0.0.1:9" in found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "out").exists()


def test_files_that_the_server_lists_are_those_of_the_folder(run_script, server, tmp_path):
    base = tmp_path / "files with [odd] names"
    (base / "sub" / "deeper").mkdir(parents=True)
    (base / "sub" / "_delta_log").mkdir()
    for name, said in {"a.jsonl": b"{}\n", "b.bin": bytes(range(9)), "sub/c.jsonl": b"", "sub/deeper/d e.txt": b"x",
                       "sub/_delta_log/0.json": b"{}", "a[1].jsonl": b"1"}.items():  # fmt: skip
        (base / name).write_bytes(said)
    lines = "".join(f"{rng.randbytes(500).hex()}\n" for rng in [random.Random(1)] for _ in range(36_000))
    (base / "large.jsonl").write_text(lines)
    (base / "large.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
    asked = ["a.jsonl", "a[1].jsonl", "none", "sub", "sub/deeper", "sub/_delta_log", "sub/c.jsonl"]
    told = run_script(FILES, server.address, str(base), json.dumps(asked))
    for what in ("find", "exists", "children"):
        for path, (theirs, ours) in zip(asked, told[what], strict=False):
            assert theirs == ours, (what, path)
    assert told["head"] == [[0, 1, 2], list(range(9))]
    # larger than what is held as one value
    for size, head in told["large"]:
        assert size > 16 << 20
        assert head == lines[:300]
    missing, folder, written, scheme = told["refused"]
    assert "it is not there" in missing
    assert "it is a folder" in folder
    assert "/Volumes/" in written
    assert "nosuch" in scheme
