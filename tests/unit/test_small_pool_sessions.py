"""Which pools are known to be small before there is a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from mig_spark.config.run import PoolConfig
from mig_spark.ingest import sources
from mig_spark.ingest.sources import is_small_pool


@pytest.fixture(autouse=True)
def _ten_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SMALL_POOL_BYTES", 10)


def pool(path: Path | str | list[str]) -> PoolConfig:
    return PoolConfig(path=path if isinstance(path, list) else str(path))


def test_sizes_of_files_folders_and_globs_are_added_up(tmp_path: Path) -> None:
    inside = tmp_path / "in" / "side"
    inside.mkdir(parents=True)
    (inside / "a.jsonl").write_bytes(b"123456")
    assert is_small_pool(pool(tmp_path))
    assert is_small_pool(pool(inside / "a.jsonl"))
    (tmp_path / "b.jsonl").write_bytes(b"12345")
    assert not is_small_pool(pool(tmp_path))
    assert is_small_pool(pool(f"{tmp_path}/*.jsonl"))
    assert not is_small_pool(pool([str(inside), str(tmp_path / "b.jsonl")]))


def test_zipped_files_are_taken_for_more(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"123")
    assert not is_small_pool(pool(tmp_path))
    (tmp_path / "a.jsonl.gz").write_bytes(b"12")
    assert is_small_pool(pool(tmp_path))


def test_tables_other_file_systems_and_what_is_not_there_are_not_known(tmp_path: Path) -> None:
    (tmp_path / "table" / "_delta_log").mkdir(parents=True)
    assert not is_small_pool(pool(tmp_path / "table"))
    assert not is_small_pool(pool(tmp_path / "nowhere"))
    assert not is_small_pool(pool("main.raw.rows"))
    assert not is_small_pool(pool("s3://bucket/rows.jsonl"))
