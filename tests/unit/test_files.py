"""Single files, local and elsewhere, without a session."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys

import pytest

from mig_spark.annotation.label_lists import read_label_list
from mig_spark.annotation.sample_rows import sample_texts
from mig_spark.config import OutputConfig, build_config
from mig_spark.errors import ConfigError, DependencyError, InputError
from mig_spark.kernels.annotation.model_files import model_folder
from mig_spark.lakehouse import tables
from mig_spark.lakehouse.files import is_remote, read_bytes, write_lines
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.selection.stage import remove_saved


def test_local_files_by_path_and_by_uri(tmp_path):
    file = tmp_path / "with space.txt"
    assert write_lines(["one", "two"], file) == 2
    assert read_bytes(file) == read_bytes(file.as_uri()) == b"one\ntwo\n"
    assert not is_remote(file)
    assert not is_remote(file.as_uri())
    assert is_remote("s3://bucket/x")
    assert is_remote("dbfs:/Volumes/x")


def test_a_name_that_ends_in_gz_is_gzipped_the_same_each_time(tmp_path):
    one, two = tmp_path / "one.jsonl.gz", tmp_path / "TWO.JSONL.GZ"
    for file in (one, two):
        assert write_lines(["é", "b"], file) == 2
    assert gzip.decompress(one.read_bytes()) == "é\nb\n".encode()
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", ["a%20b", "a#b", "a?b"])
def test_a_uri_of_a_file_is_taken_by_its_letters_as_spark_takes_it(name, tmp_path):
    uri = f"file:{tmp_path}/{name}/x.jsonl"
    write_lines(["one"], uri)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert Files(None).exists(uri)
    assert read_bytes(uri) == b"one\n"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_lines(["one"], pipe)
        assert os.read(reader, 100) == b"one\n"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


def test_of_a_folder_of_saved_rounds_only_these_are_removed(tmp_path):
    folder = tmp_path / "checkpoints"
    write_lines(["{}"], folder / "select-0123456789abcdef.jsonl")
    write_lines(["weights"], folder / "step-100" / "model.bin")
    remove_saved(Files(None), f"file:{folder}")
    assert [p.name for p in folder.iterdir()] == ["step-100"]
    assert read_bytes(folder / "step-100" / "model.bin") == b"weights\n"
    (tmp_path / "other").mkdir()
    write_lines(["{}"], tmp_path / "other" / "select-0123456789abcdef.jsonl")
    remove_saved(Files(None), f"file:{tmp_path}/other")
    remove_saved(Files(None), f"file:{tmp_path}/other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("path", "why"),
    [("{}/none.json", "No such file or directory"), ("nosuch://h/x.json", "nosuch"), ("{}", "directory")],
)
def test_what_cannot_be_read_is_told_in_one_line(path, why, tmp_path):
    path = path.format(tmp_path)
    with pytest.raises(InputError, match=rf"cannot read {path}: .*{why}"):
        read_bytes(path)
    with pytest.raises(InputError, match=rf"no list of labels: cannot read {path}: .*; give a JSON file with a list"):
        read_label_list(path)
    with pytest.raises(InputError, match=rf"annotate.tagger.sample: cannot read {path}: .*; give a JSONL or JSON"):
        sample_texts(path)


def test_a_model_in_an_object_store_is_no_name_on_the_hub():
    for name in ("s3://bucket/model", "abfss://c@account/model"):
        with pytest.raises(DependencyError, match=f"the model at {name} cannot be loaded from there"):
            model_folder(name)
    with pytest.raises(DependencyError, match="no model at /Volumes/main/files/model"):
        model_folder("dbfs:/Volumes/main/files/model")


def test_a_cache_folder_is_a_local_one():
    plain = {"pool": {"path": "p"}, "output": {"path": "o"}}
    tagger = {"kind": "distilled", "cache_dir": "s3://bucket/cache"}
    with pytest.raises(ConfigError, match="cache_dir is a folder that Python opens on every node"):
        build_config({**plain, "annotate": {"tagger": tagger}})


def test_what_another_process_is_writing_stays(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for folder in (tmp_path, tmp_path / "checkpoints", tmp_path / "exports"):
        folder.mkdir(exist_ok=True)
        for name in (f".train.{os.getppid()}.part", f".train.{gone.pid}.part", f".mine.{os.getpid()}.part"):
            (folder / name).mkdir()
            (folder / name / "rows.jsonl").touch()
    Store(None, OutputConfig(path=str(tmp_path)))._drop_parts()
    living = f".train.{os.getppid()}.part"
    assert {p.name for p in tmp_path.iterdir()} == {living, "checkpoints", "exports"}
    assert [p.name for name in ("checkpoints", "exports") for p in (tmp_path / name).iterdir()] == [living] * 2


def test_a_scratch_table_is_the_outputs_however_its_path_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stores = [Store(None, OutputConfig(path=path)) for path in ("out", f"{tmp_path}/out/", f"file:{tmp_path}/out")]
    for made in stores:
        said = {tables._SCRATCH_OF: made._identity()}
        monkeypatch.setattr(tables, "table_properties", lambda *_, said=said: said)
        assert all(store._is_left_behind("where") for store in stores)
        assert not Store(None, OutputConfig(path="other"))._is_left_behind("where")
