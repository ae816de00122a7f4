"""What goes wrong around a run: damaged sources, a full disk, places that cannot be written, tables and models that are
gone. Each ends in one clear line and exit code 2, or the run goes on; what was published stays; mended, a rerun gives
the tables of an undisturbed run."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fault_runs import delta_rows, left_over, plain_config, records, results, write_pool
from pyspark.sql import SparkSession

from mig_spark.cli import main

pytestmark = pytest.mark.faults

Run = Callable[..., "Ended"]


@dataclass
class Ended:
    """How a command ended."""

    code: int
    stderr: list[str]
    told: dict[str, Any]

    def failed(self, *words: str) -> None:
        """See that it ended with one line for the user, which has these words, and no stack trace."""
        assert self.code == 2, self.stderr[-3:]
        assert not [line for line in self.stderr if line.startswith(("Traceback", "  File ", "\tat "))]
        said = [line for line in self.stderr if line.startswith("mig-spark: ")]
        assert said == self.stderr[-1:]
        for word in words:
            assert word in said[0], said[0]
        assert self.told["exit_code"] == 2


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """The command line sets up logging for its process."""
    root = logging.getLogger("mig_spark")
    before = root.handlers[:], root.propagate, root.level
    yield
    root.handlers[:], root.propagate, root.level = before


@pytest.fixture
def run(spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], logging_as_it_was: None) -> Run:
    """The command line in this session: `run(config, command="run")`."""

    def call(config: dict[str, Any], command: str = "run") -> Ended:
        path = tmp_path / "config.yaml"
        path.write_text(json.dumps(config))
        capsys.readouterr()
        code = 0
        try:
            main([command, str(path), "--json"])
        except SystemExit as e:
            code = int(e.code or 0)
        said = capsys.readouterr()
        return Ended(code, said.err.splitlines(), json.loads(said.out.splitlines()[-1]))

    return call


@pytest.fixture(scope="module")
def published(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool in `in`, and what a run has published in `out`."""
    from mig_spark import build_config, run_pipeline

    folder = tmp_path_factory.mktemp("published")
    write_pool(folder / "in", records(40))
    run_pipeline(spark, build_config(plain_config(folder)))
    assert left_over(folder / "out") == []
    return folder


@pytest.fixture
def config(published: Path, tmp_path: Path) -> dict[str, Any]:
    """The config of `published`, whose output has been copied to `tmp_path`/out."""
    shutil.copytree(published / "out", tmp_path / "out")
    return {**plain_config(published), "output": {"path": str(tmp_path / "out")}}


@contextlib.contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """A file system of its own at `folder`, with what is in it; skips where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    held = folder.with_name(f"{folder.name}-held")
    folder.rename(held)
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(["rw", *options]), "tmpfs", str(folder)],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        shutil.copytree(held, folder, dirs_exist_ok=True)
        yield
        shutil.rmtree(held)
        shutil.copytree(folder, held)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()
        held.rename(folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing can be written in `folder`; for root, whom permissions do not stop, by its file system."""
    if os.geteuid():
        folder.chmod(0o555)
        try:
            yield
        finally:
            folder.chmod(0o755)
        return
    with mounted(folder):
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        try:
            yield
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def selected(out: Path) -> tuple[list[str], list[str]]:
    return delta_rows(out / "tables" / "selection"), (out / "selection.jsonl").read_text().splitlines()


def ids(out: Path) -> list[str]:
    return [json.loads(line)["id"] for line in (out / "selection.jsonl").read_text().splitlines()]


def test_a_damaged_parquet_file(run: Run, config: dict[str, Any], published: Path, tmp_path: Path) -> None:
    out, pool = tmp_path / "out", tmp_path / "in"
    pool.mkdir()
    for k in range(2):
        pq.write_table(pa.Table.from_pylist(records(40)[k::2]), pool / f"{k}.parquet")
    config["pool"]["path"] = str(pool)
    whole = (pool / "1.parquet").read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:200] + bytes(200) + whole[400:], b""):
        (pool / "1.parquet").write_bytes(damaged)
        before = selected(out)
        run(config).failed("1.parquet")
        assert selected(out) == before
        assert left_over(out) == []
    (pool / "1.parquet").write_bytes(whole)
    assert run(config).code == 0
    assert ids(out) == ids(published / "out")


def test_a_truncated_gzip_file(run: Run, config: dict[str, Any], published: Path, tmp_path: Path) -> None:
    out, pool = tmp_path / "out", tmp_path / "in"
    write_pool(pool, records(40), files=2)
    plain = (pool / "1.jsonl").read_bytes()
    (pool / "1.jsonl").unlink()
    whole = gzip.compress(plain)
    config["pool"]["path"] = str(pool)
    before = selected(out)
    (pool / "1.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    run(config).failed("1.jsonl.gz")
    assert selected(out) == before
    assert left_over(out) == []
    (pool / "1.jsonl.gz").write_bytes(whole)
    assert run(config).code == 0
    assert ids(out) == ids(published / "out")


def test_a_source_whose_schema_changed_overnight(
    run: Run, config: dict[str, Any], spark: SparkSession, published: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "out", str(tmp_path / "source")
    config["pool"]["path"] = source
    rows = spark.createDataFrame(records(40), "id string, prompt string, response string, score double, "
                                 "labels array<string>")  # fmt: skip

    def overnight(df: Any) -> None:
        df.write.format("delta").mode("overwrite").option("overwriteSchema", "true").save(source)

    before = selected(out)
    overnight(rows.withColumnRenamed("score", "points"))
    run(config).failed("score")
    assert selected(out) == before
    overnight(rows.withColumnRenamed("labels", "tags"))
    run(config).failed("label")
    assert selected(out) == before
    overnight(rows.withColumnsRenamed({"prompt": "a", "response": "b"}))
    run(config).failed("no usable row")
    assert selected(out) == before
    overnight(rows.withColumn("score", rows["score"].cast("string")))
    run(config).failed("score is '")
    assert selected(out) == before
    # a column more, another type of number
    overnight(rows.selectExpr("*", "1 as more").withColumn("score", rows["score"].cast("decimal(9, 3)")))
    assert run(config).code == 0
    assert ids(out) == ids(published / "out")


@pytest.mark.parametrize("gone", ["pool", "labels", "annotated", "annotations"])
def test_a_table_vanishes_between_stages(
    run: Run, config: dict[str, Any], published: Path, tmp_path: Path, gone: str
) -> None:
    out = tmp_path / "out"
    before = selected(out)
    shutil.rmtree(out / "tables" / gone)
    if gone == "annotations":  # what comes after annotation does not read them
        assert run(config, "select").code == 0
    else:
        run(config, "select").failed(f"no table '{gone}'", "run the stage `")
    assert selected(out) == before
    assert run(config).code == 0
    assert results(out) == results(published / "out")
    assert left_over(out) == []


def test_a_file_of_a_table_vanishes(run: Run, config: dict[str, Any], published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = selected(out)
    for file in (out / "tables" / "annotated").glob("*.parquet"):
        file.unlink()
    run(config, "select").failed(".parquet")
    assert selected(out) == before
    shutil.rmtree(out / "tables" / "annotated")
    assert run(config).code == 0
    assert results(out) == results(published / "out")


def test_output_that_cannot_be_written(run: Run, config: dict[str, Any], published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config["select"]["budget"] = 5
    before = selected(out)
    with read_only(out):
        run(config).failed("output.path")
        assert selected(out) == before
    with read_only(tmp_path / "closed"):
        run({**config, "output": {"path": str(tmp_path / "closed" / "new")}}).failed("output.path")
        assert not (tmp_path / "closed" / "new").exists()
    assert run(config).code == 0
    assert ids(out) == ids(published / "out")[:5]


def test_a_model_that_cannot_be_loaded(run: Run, config: dict[str, Any], tmp_path: Path) -> None:
    out, model = tmp_path / "out", tmp_path / "model"
    before = selected(out)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(["bread", "code"]))
    tagger = {"kind": "embedding", "model": str(model), "vocabulary": str(labels)}
    broken = {**config, "annotate": {"tagger": tagger, "scorer": {"kind": "heuristic"}}}
    run(broken).failed(str(model))
    model.mkdir()
    (model / "config.json").write_text("{")
    (model / "modules.json").write_text("[")
    run(broken).failed("model")
    graph = {**config, "graph": {"embedding_model": str(tmp_path / "none"), "threshold": 0.9}}
    run(graph).failed(str(tmp_path / "none"))
    assert selected(out) == before
    assert run(config).code == 0
    assert selected(out) == before


def test_a_checkpoint_folder_that_cannot_be_written(
    run: Run, config: dict[str, Any], published: Path, tmp_path: Path
) -> None:
    """The rounds are not saved, which the log says, and the selection is made all the same."""
    out = tmp_path / "out"
    config["select"]["budget"] = 12
    (out / "checkpoints").mkdir()
    with read_only(out / "checkpoints"):
        done = run(config)
    assert done.code == 0, done.stderr[-3:]
    told = [line for line in done.stderr if "checkpoints" in line]
    assert len(told) == 1
    assert ids(out) == ids(published / "out")[:12]


def test_a_damaged_checkpoint(run: Run, config: dict[str, Any], published: Path, tmp_path: Path) -> None:
    """A checkpoint that is no longer what was written is not gone on with."""
    from mig_spark import build_config
    from mig_spark.curation.finished import stage_key, stage_reads
    from mig_spark.curation.stages import STAGES, selects_by
    from mig_spark.lakehouse.tables import Store
    from mig_spark.selection.stage import _Checkpoint

    out = tmp_path / "out"
    config["select"]["budget"] = 12
    parsed = build_config(config)
    store, stage = Store(SparkSession.getActiveSession(), parsed.output), STAGES["select"]
    reads = {"strategy": parsed.select.strategy.version, "made_with": {"select": selects_by(parsed)}}
    key = stage_key(parsed, stage, stage_reads(store, parsed, stage, **reads))
    saved = Path(_Checkpoint(store, parsed, key, None).path)
    for text in ('{"rank": 0, "id": "r0', '{"rank": 1, "id": "r001"}\n', "\x00\x01", ""):
        saved.parent.mkdir(exist_ok=True)
        saved.write_text(text)
        done = run(config)
        assert done.code == 0
        assert any("is damaged" in line for line in done.stderr) == bool(text)
        assert ids(out) == ids(published / "out")[:12]
        assert left_over(out) == []
        shutil.rmtree(out / "tables" / "selection")


def test_the_disk_is_full(run: Run, config: dict[str, Any], published: Path, tmp_path: Path) -> None:
    out, pool = tmp_path / "out", tmp_path / "in"
    shutil.copytree(published / "in", pool)
    config["pool"]["path"] = str(pool)
    failed = 0
    with mounted(out, "size=16m"):
        for kilobytes in (0, 48, 120, 240):
            before = selected(out)
            fill(out / ".filler", leave=kilobytes << 10)
            done = run(config)
            if done.code:
                done.failed()
                failed += 1
                assert not any("waiting up to" in line for line in done.stderr)
                # nothing, or all of it: the table is published in one commit, its file after that
                assert selected(out)[0] == before[0] or ids_of(out) == ids(published / "out")
            (out / ".filler").unlink()
        assert failed >= 2
        assert run(config).code == 0
        assert left_over(out) == []
        assert ids(out) == ids(published / "out")


def ids_of(out: Path) -> list[str]:
    import ast

    rows = [ast.literal_eval(row) for row in delta_rows(out / "tables" / "selection")]
    return [row["id"] for row in sorted(rows, key=lambda r: r["rank"])]


def fill(path: Path, leave: int) -> None:
    """Fill the file system at `path`, but for so many bytes."""
    free = shutil.disk_usage(path.parent).free
    path.write_bytes(bytes(max(0, free - leave)))
