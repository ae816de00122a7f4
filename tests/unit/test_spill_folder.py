"""The folder of paid answers: what is in it beside our own is read by nobody and removed by nobody."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mig_spark.annotation.spill_folder import MARKER, SpillFolder
from mig_spark.config import AnnotateConfig, OutputConfig
from mig_spark.errors import InputError
from mig_spark.kernels.annotation.spill import Spill, answer_line, read_spill, task_name
from mig_spark.lakehouse.storage import Files

CONFIG = AnnotateConfig()


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder: paths and contents."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def answer(folder: str | None, key: str) -> None:
    assert folder is not None
    spill = Spill(folder, task_name(0))
    spill.add(answer_line(key, f"answer {key}", False, 1, 1))
    spill.close()


def foreign(folder: Path) -> None:
    """What people keep in a folder, some of it named nearly as our own: the pool, a table, numbers, logs."""
    for name in (
        "pool.jsonl", "pool/part-0.parquet", "tables/_delta_log/00000000000000000000.json", "000000/notes.txt",
        "run-1/000000/notes.txt", "run-1/000001/12-0123abcd.jsonl", "run-2/12-0123abcd.jsonl", "12-0123abcd.jsonl",
        "task-00000-0123abcd.jsonl", "run-3/000000/task-00000-0123abcd.jsonl.bak", "annotate-spill/mine.txt", "empty/x",
    ):  # fmt: skip
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"key": name, "text": "not ours"}))
    (folder / "empty" / "x").unlink()


def open_(output: Path, spill: Path | None, run: str) -> SpillFolder:
    config = CONFIG if spill is None else AnnotateConfig(spill_path=str(spill))
    return SpillFolder.open(OutputConfig(path=str(output)), config, run)


def test_a_spill_path_full_of_other_things_keeps_them_all(tmp_path: Path) -> None:
    spill, out = tmp_path / "shared", tmp_path / "out"
    foreign(spill)
    before = tree(spill)
    run = open_(out, spill, "run-9")
    assert run.earlier == ()
    assert tree(spill) == before
    answer(run.chunk(0), "k0")
    answer(run.chunk(1), "k1")
    run.remove_chunk(0)
    # the run dies here
    later = open_(out, spill, "run-10")
    assert set(read_spill(later.earlier)) == {"k1"}
    answer(later.chunk(0), "k2")
    later.remove_chunk(0)
    later.remove_earlier()
    assert tree(spill) == before


def test_two_outputs_share_a_path_and_do_not_touch_each_other(tmp_path: Path) -> None:
    spill = tmp_path / "shared"
    mine, other = open_(tmp_path / "a", spill, "run-1"), open_(tmp_path / "b", spill, "run-1")
    answer(mine.chunk(0), "mine")
    answer(other.chunk(0), "other")
    mine, other = open_(tmp_path / "a", spill, "run-2"), open_(tmp_path / "b", spill, "run-2")
    assert (set(read_spill(mine.earlier)), set(read_spill(other.earlier))) == ({"mine"}, {"other"})
    mine.remove_earlier()
    assert set(read_spill(open_(tmp_path / "b", spill, "run-3").earlier)) == {"other"}
    assert open_(tmp_path / "a", spill, "run-3").earlier == ()
    other.remove_earlier()
    assert tree(spill) == {}


def test_an_output_is_the_same_by_whatever_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [OutputConfig(path=p) for p in ("out", f"{tmp_path}/out/", f"file:{tmp_path}/out")]
    config = AnnotateConfig(spill_path=str(tmp_path / "s"))
    assert len({SpillFolder.open(name, config, "r").own for name in names}) == 1
    others = [OutputConfig(path="s3://b/out"), OutputConfig(database="d"), OutputConfig(catalog="c", database="d")]
    assert len({SpillFolder.open(name, config, "r").own for name in (*names, *others)}) == 4


def test_a_run_that_is_started_again_under_its_id_finds_what_it_had(tmp_path: Path) -> None:
    first = open_(tmp_path, None, "run-1")
    answer(first.chunk(0), "k")
    again = open_(tmp_path, None, "run-1")
    assert again.chunk(0) != first.chunk(0)
    assert set(read_spill(again.earlier)) == {"k"}
    again.remove_earlier()
    assert tree(tmp_path) == {}


def test_a_folder_of_our_name_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    own = open_(tmp_path, None, "run-1").own
    assert own is not None
    (own / "run-0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"something else is in it .*set annotate\.spill_path"):
        open_(tmp_path, None, "run-1")
    (own / MARKER).write_text("{")
    with pytest.raises(InputError, match="something else is in it"):
        open_(tmp_path, None, "run-1")
    (own / "run-0").rmdir()
    (own / MARKER).unlink()
    # a run that died before it had written the marker
    assert open_(tmp_path, None, "run-1").chunk(0) is not None


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = open_(tmp_path, tmp_path / "file" / "spill", "run-1")
    with pytest.raises(InputError, match=r"cannot write paid answers to .*set annotate\.spill_path to another"):
        run.chunk(0)


def test_answers_that_were_put_aside_stay_for_a_look(tmp_path: Path) -> None:
    first = open_(tmp_path, None, "run-1")
    assert first.aside is not None
    first.chunk(0)
    answer(first.aside, "useless")
    first.remove_earlier()
    later = open_(tmp_path, None, "run-2")
    assert (later.earlier, set(read_spill(later.gone))) == ((), {"useless"})
    later.remove_earlier()
    assert later.own is not None
    assert "answer useless" in "".join(f.read_text() for f in later.own.rglob("*.jsonl"))


def old_version(chunk: Path, key: str) -> None:
    """As version 0.1 wrote them."""
    chunk.mkdir(parents=True)
    (chunk / "4242-0123abcd.jsonl").write_text(json.dumps({"key": key, "text": "t", "cut": False}) + "\n")


def test_what_an_older_version_left_in_the_output_is_read_and_removed(tmp_path: Path) -> None:
    old_version(tmp_path / "annotate-spill" / "run-1" / "000003", "old")
    run = open_(tmp_path, None, "run-2")
    assert set(read_spill(run.earlier)) == {"old"}
    run.chunk(0)
    run.remove_earlier()
    assert tree(tmp_path) == {}


def test_what_an_older_version_left_in_a_shared_folder_is_read_and_not_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    foreign(tmp_path)
    old_version(tmp_path / "20260101T000000Z-0123abcd" / "000003", "old")
    before = tree(tmp_path)
    with caplog.at_level(logging.WARNING):
        run = open_(tmp_path / "elsewhere", tmp_path, "run-2")
    assert set(read_spill(run.earlier)) == {"old"}
    assert "remove 20260101T000000Z-0123abcd when nobody needs them" in caplog.text
    run.remove_earlier()
    assert tree(tmp_path) == before


def test_a_marker_that_was_not_written_to_its_end_stops_nobody(tmp_path: Path) -> None:
    run = open_(tmp_path, None, "run-1")
    assert run.own is not None
    run.own.mkdir()
    # the disk was full
    (run.own / MARKER).touch()
    again = open_(tmp_path, None, "run-2")
    answer(again.chunk(0), "k")
    assert set(read_spill(open_(tmp_path, None, "run-3").earlier)) == {"k"}


def test_an_output_on_another_file_system_has_no_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster whose paths without a scheme are HDFS's, each node would write to a folder of its own."""
    files = Files(cast("Any", None))
    monkeypatch.setitem(vars(files), "_default_is_local", False)
    plain, uri = OutputConfig(path=str(tmp_path / "out")), OutputConfig(path=f"file:{tmp_path}/out")
    assert SpillFolder.open(plain, CONFIG, "r", files=files).own is None
    assert SpillFolder.open(OutputConfig(path="hdfs:/out"), CONFIG, "r", files=files).own is None
    mount = AnnotateConfig(spill_path=str(tmp_path / "nfs"))
    for output, config in ((uri, CONFIG), (plain, mount)):
        assert SpillFolder.open(output, config, "r", files=files).own is not None
    monkeypatch.setitem(vars(files), "_default_is_local", True)
    assert SpillFolder.open(plain, CONFIG, "r", files=files).own == SpillFolder.open(uri, CONFIG, "r", files=files).own


def test_an_answer_that_was_put_aside_does_not_stand_for_the_next_one(tmp_path: Path) -> None:
    """A row whose answer could not be read is asked for again, and the new answer is as good as any."""

    def put(folder: str, *texts: str) -> str:
        spill = Spill(str(tmp_path / folder), task_name(0))
        for text in texts:
            spill.add(answer_line("k", text, False, 1, 1))
        spill.close()
        return str(tmp_path / folder)

    gone, earlier = put("gone", "bad", "worse"), put("earlier", "worse", "bad", "good")
    assert read_spill([earlier], [gone])["k"]["text"] == "good"
    assert read_spill([put("other", "bad")], [gone]) == {}


def test_no_file_is_written_where_tasks_do_not_open_the_folder(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On Databricks' shared and serverless compute tasks are kept apart from volumes."""
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "client.4")
    files, volume = Files(cast("Any", SimpleNamespace(conf={}))), "/Volumes/main/mig/files"
    assert files.os_path(volume) == volume
    assert SpillFolder.open(OutputConfig(path=volume, database="mig"), CONFIG, "r", files=files).own is None
    assert "kept in memory until their chunk is committed" in caplog.text
