"""Tables of Iceberg as a source: read at a snapshot that is on record, read again where it did not change, and never
written. In real catalogs of the type `hadoop`, with Iceberg's own jar, in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyspark
import pytest
from fault_runs import Job, plain_config, records, results

LINE = ".".join(pyspark.__version__.split(".")[:2])
#: The builds of Iceberg that were tried, by the line of Spark that they are for; for 4.2 there is none yet.
RUNTIMES = {"4.1": "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0"}
pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.matrix]
with_runtime = pytest.mark.skipif(
    LINE not in RUNTIMES,
    reason=f"no build of Iceberg was tried with Spark {LINE} (there is none for 4.2): make test-matrix does on 4.1",
)

#: Begins each script: a session as a config asks for it, and a pool of which each step writes a part.
BEGIN = """
import json, sys
from pathlib import Path
from fault_runs import plain_config, records
from mig_spark import build_config, run_pipeline
from mig_spark.config import SparkConfig
from mig_spark.contracts import POOL, REJECTED, RUNS
from mig_spark.curation.replay import replay_run
from mig_spark.curation.retention import warn_of_short_retention
from mig_spark.errors import MigError
from mig_spark.ingest.incremental import ingest_changes
from mig_spark.ingest.pool import ingest_pool
from mig_spark.ingest.sources import find_parts
from mig_spark.lakehouse.session import get_session
from mig_spark.lakehouse.tables import Store

folder, conf = Path(sys.argv[1]), json.loads(sys.argv[2])
plain = plain_config(folder)
plain["spark"]["conf"] |= conf
plain["pool"]["path"] = "lake.db.rows"
spark = get_session(SparkConfig(**plain["spark"])).spark
SHAPE = "id string, prompt string, response string, labels array<string>, score double"
ROWS = records(40)

def add(rows, table="lake.db.rows"):
    rows = [tuple(r[k] for k in ("id", "prompt", "response", "labels", "score")) for r in rows]
    spark.createDataFrame(rows, SHAPE).coalesce(1).writeTo(table).append()

def snapshot(table="lake.db.rows"):
    shown = spark.sql(f"SELECT snapshot_id FROM {table}.refs WHERE name = 'main'").collect()
    return shown[0][0] if shown else None

def expire(table="lake.db.rows"):
    spark._jvm.java.lang.Thread.sleep(5)
    now = spark._jvm.java.lang.System.currentTimeMillis()
    loaded = spark._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, table)
    loaded.expireSnapshots().expireOlderThan(now).retainLast(1).commit()
    spark.sql(f"REFRESH TABLE {table}")

def ids(store):
    return sorted(r["id"] for r in store.read(POOL).collect())

def refused(call):
    try:
        call()
    except MigError as e:
        return [type(e).__name__, e.exit_code, str(e)]
    return ["nothing", 0, ""]

spark.sql(f"CREATE TABLE lake.db.rows ({SHAPE}) USING iceberg TBLPROPERTIES ('format-version' = '2')")
out = {}
"""

RUNS = """
config = build_config(plain)
store = Store(spark, config.output)
out["empty"] = refused(lambda: find_parts(spark, config.pool))
add(ROWS[:16])
add(ROWS[16:30])
spark.sql("DELETE FROM lake.db.rows WHERE id = 'r003'")
out["snapshots"] = [snapshot()]
run_pipeline(spark, config, run_id="first")
[[inputs]] = store.read(RUNS).where("run_id = 'first'").select("inputs").collect()
out["inputs"] = json.loads(inputs)["pool"]
out["retention"] = warn_of_short_retention(store, out["inputs"])
spark.sql("ALTER TABLE lake.db.rows SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms' = '2592000000')")
out["kept"] = warn_of_short_retention(store, out["inputs"])
out["first"] = ids(store)
out["again"] = sorted(run_pipeline(spark, config, run_id="again")["skipped"])

# parts that were found keep to what there was then
parts = find_parts(spark, config.pool)
add(ROWS[30:])
out["snapshots"].append(snapshot())
late = build_config({**plain, "output": {"path": f"{folder}/late"}})
ingest_pool(Store(spark, late.output), late, "late", parts=parts)
out["late"] = ids(Store(spark, late.output))

second = run_pipeline(spark, config, run_id="second")
out["second"], out["second skipped"] = ids(store), sorted(second["skipped"])
replayed = replay_run(spark, config, "first", from_source=True)
out["replayed"] = [replayed.same, replayed.source.same, replayed.source.rows, replayed.differs]
expire()
out["gone"] = refused(lambda: replay_run(spark, config, "first", from_source=True))
out["without source"] = replay_run(spark, config, "first").same
out["newest"] = replay_run(spark, config, "second", from_source=True).same
print(json.dumps(out))
"""

CHANGES = """
changes, whole = (
    build_config({**plain, "output": {"path": f"{folder}/{name}"}, "mode": mode})
    for name, mode in (("changes", "incremental"), ("whole", "full"))
)
a, b = Store(spark, changes.output), Store(spark, whole.output)

def step(name):
    how = ingest_changes(a, changes, "a")["changes"]
    ingest_pool(b, whole, "b")
    both = [(sorted(map(repr, s.read(POOL).collect())), sorted(map(repr, s.read(REJECTED).drop("run_id").collect())))
            for s in (a, b)]
    out[name] = [how, snapshot(), both[0] == both[1], len(both[0][0])]

add(ROWS[:20])
step("first")
step("same")
add(ROWS[20:30])
spark.sql("DELETE FROM lake.db.rows WHERE id IN ('r003', 'r004')")
spark.sql("UPDATE lake.db.rows SET response = 'another' WHERE id = 'r005'")
step("changed")
spark.sql("ALTER TABLE lake.db.rows ADD COLUMNS (note string)")
spark.sql("INSERT INTO lake.db.rows VALUES ('noted', 'ask', 'answer', array('label 1'), 1.0, 'a note')")
step("a column more")
spark.sql("DELETE FROM lake.db.rows WHERE id = 'r006'")
expire()
step("expired")
spark.sql("DROP TABLE lake.db.rows")
spark.sql(f"CREATE TABLE lake.db.rows ({SHAPE}) USING iceberg")
add(ROWS[30:])
step("made anew")
print(json.dumps(out))
"""

NAMES = """
from mig_spark.config import PoolConfig
from mig_spark.ingest.pool import read_table_part
from mig_spark.lakehouse.lists import open_table, read_list
from mig_spark.starter import write_starter

add(ROWS[:4])
old = snapshot()
add(ROWS[4:6])
loaded = spark._jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(spark._jsparkSession, "lake.db.rows")
loaded.manageSnapshots().createBranch("kept", old).commit()
names = {"branch": "branch_kept", "snapshot": f"snapshot_id_{old}"}
for kind, name in names.items():
    [part] = find_parts(spark, PoolConfig(path=f"lake.db.rows.{name}"))
    out[kind] = [part.kind, part.version, part.tells_changes, read_table_part(spark, part).count()]
looked, proposed = write_starter(["lake.db.rows"], str(folder / "proposed.yaml"), columns={})
out["init"] = [looked.rows, proposed.pool.path]
table = str(folder / "lake" / "db" / "rows")
out["folder"] = refused(lambda: find_parts(spark, PoolConfig(path=table)))
out["no session"] = refused(lambda: find_parts(None, PoolConfig(path=table)))
out["above"] = refused(lambda: find_parts(spark, PoolConfig(path=str(folder / "lake"))))
out["format"] = refused(lambda: find_parts(spark, PoolConfig(path="lake.db.rows", format="delta")))
out["list folder"] = refused(lambda: open_table(spark, table))
lists = {"newest": "lake.db.rows", "then": f"lake.db.rows@v{old}"}
for name, where in lists.items():
    out[name] = sorted(read_list(where, {"id": "text"}, "ids", spark=spark)["id"].to_pylist())

# what another process writes is seen too, though the session keeps tables that it has opened
one = spark._jvm.org.apache.iceberg.hadoop.HadoopTables(spark._jsc.hadoopConfiguration()).load(table)
one.newDelete().deleteFromRowFilter(spark._jvm.org.apache.iceberg.expressions.Expressions.alwaysTrue()).commit()
[part] = find_parts(spark, PoolConfig(path="lake.db.rows"))
out["another"] = [str(part.version), read_table_part(spark, part).count()]
one.refresh()
out["current"] = str(one.currentSnapshot().snapshotId())
print(json.dumps(out))
"""


def settings(folder: Path, coordinate: str | None) -> dict[str, str]:
    """What the docs say to put into `spark.conf`."""
    catalog = {
        "spark.sql.catalog.lake": "org.apache.iceberg.spark.SparkCatalog",
        "spark.sql.catalog.lake.type": "hadoop",
        "spark.sql.catalog.lake.warehouse": str(folder / "lake"),
    }
    return catalog if coordinate is None else {**catalog, "spark.jars.packages": coordinate}


@pytest.fixture
def said(run_script, tmp_path: Path):
    """What a script prints."""

    def run(script: str) -> dict[str, Any]:
        return run_script(BEGIN + script, str(tmp_path), json.dumps(settings(tmp_path, RUNTIMES[LINE])))

    return run


@with_runtime
def test_a_run_reads_one_snapshot_and_replay_reads_it_again(said) -> None:
    out = said(RUNS)
    then, now = out["snapshots"]
    assert then != now
    assert out["empty"][:2] == ["InputError", 2]
    assert "lake.db.rows has no snapshot yet" in out["empty"][2]

    thirty = [r["id"] for r in records(30) if r["id"] != "r003"]
    assert out["first"] == thirty
    [source] = out["inputs"]
    assert (source["kind"], source["format"], source["name"]) == ("table", "iceberg", "lake.db.rows")
    assert (source["version"], source["records"]) == (then, 29)
    assert source["committed_ms"] > 1_700_000_000_000

    [short] = out["retention"]
    assert f"lake.db.rows keeps old snapshots for 5 days: after that its snapshot {then} may not be read again" in short
    assert "'history.expire.max-snapshot-age-ms' = '2592000000'" in short
    assert out["kept"] == []

    assert {"ingest", "screen", "annotate", "select"} <= set(out["again"])
    assert out["late"] == thirty
    assert out["second"] == [r["id"] for r in records(40) if r["id"] != "r003"]
    assert "ingest" not in out["second skipped"]

    assert out["replayed"] == [True, True, 29, []]
    name, code, line = out["gone"]
    assert (name, code) == ("ReplayError", 2)
    assert f"lake.db.rows at snapshot {then} cannot be read any more" in line
    assert "\n" not in line
    assert (out["without source"], out["newest"]) == (True, True)


@with_runtime
def test_rows_that_changed_between_snapshots(said) -> None:
    out = said(CHANGES)
    steps = ("first", "same", "changed", "a column more", "expired", "made anew")
    assert all(out[name][2] for name in steps), "not the tables of a full ingest"
    assert [out[name][3] for name in steps] == [20, 20, 28, 29, 28, 10]
    seen = [out[name][1] for name in steps]
    assert out["first"][0]["how"] == "everything: there is no earlier incremental run"
    assert out["same"][0] == {"how": "nothing has changed", "added": 0, "changed": 0, "deleted": 0}
    told = f"lake.db.rows by comparing its snapshots, snapshots {seen[1]} to {seen[2]}"
    assert out["changed"][0] == {"how": told, "added": 11, "changed": 0, "deleted": 3}
    assert (out["a column more"][0]["added"], out["a column more"][0]["deleted"]) == (1, 0)
    for name, before in (("expired", seen[3]), ("made anew", seen[4])):
        told = f"everything: the changes of lake.db.rows since snapshot {before} cannot be read any more ("
        assert out[name][0]["how"].startswith(told)


@with_runtime
def test_other_names_of_a_table_and_lists(said) -> None:
    out = said(NAMES)
    for name, words in {
        "folder": "/lake/db/rows is the folder of an Iceberg table", "no session": "is the folder of an Iceberg table",
        "above": "/lake/db/rows is the folder of an Iceberg table", "list folder": "is the folder of an Iceberg table",
        "format": "pool.format is delta",
    }.items():  # fmt: skip
        kind, code, line = out[name]
        assert (kind, code) == ("InputError", 2), (name, line)
        assert words in line
        assert "\n" not in line
    # other names of what it had are read as they are, like views
    assert out["branch"] == out["snapshot"] == ["table", None, False, 4]
    assert out["init"] == [6, "lake.db.rows"]
    ids = [r["id"] for r in records(6)]
    assert (out["newest"], out["then"]) == (ids, ids[:4])
    assert out["another"] == [out["current"], 0]


@with_runtime
def test_the_command_line_and_spark_connect(run_script, tmp_path: Path, jobs: list[Job]) -> None:
    conf = settings(tmp_path, RUNTIMES[LINE])
    run_script(BEGIN + "add(ROWS)\nprint(json.dumps(snapshot()))", str(tmp_path), json.dumps(conf))
    made = {}
    for name, spark in {"out": {}, "connect": {"remote": "local[2]"}}.items():
        config = plain_config(tmp_path, output={"path": str(tmp_path / name)})
        config["pool"]["path"] = "lake.db.rows"
        config["spark"] |= spark
        config["spark"]["conf"] |= conf
        jobs.append(Job(tmp_path, config))
        assert jobs[-1].end()["code"] == 0, jobs[-1].said()[-3000:]
        made[name] = results(tmp_path / name)
        assert len(made[name]["pool"]) == 40
    assert made["out"] == made["connect"]


def one_line(folder: Path, coordinate: str | None) -> str:
    """What `mig-spark run` says in the end of a table in a catalog without the right jar; its exit code is 2."""
    config = plain_config(folder)
    config["pool"]["path"] = "lake.db.rows"
    config["spark"]["conf"] |= settings(folder, coordinate)
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-m", "mig_spark.cli", "run", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert not (folder / "out" / "tables" / "pool").exists()
    return done.stderr.splitlines()[-1]


def test_a_catalog_without_its_jar(tmp_path: Path) -> None:
    line = one_line(tmp_path, None)
    assert "lake.db.rows: the class org.apache.iceberg.spark.SparkCatalog of the catalog lake is not on Spark's" in line
    assert "docs/deploy.md" in line


@pytest.mark.skipif(LINE != "4.2", reason="a build for another Spark, tried on 4.2")
def test_a_jar_that_was_built_for_another_spark(tmp_path: Path) -> None:
    line = one_line(tmp_path, RUNTIMES["4.1"])
    assert f"of the catalog lake does not run on Spark {pyspark.__version__} (" in line
    assert "docs/deploy.md" in line
