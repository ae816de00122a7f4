"""Files by backend: the operating system's answers are Hadoop's, and Hadoop is not asked where it need not be."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mig_spark.errors import InputError
from mig_spark.lakehouse import storage
from mig_spark.lakehouse.files import read_bytes, write_lines
from mig_spark.lakehouse.hadoop import HadoopFiles
from mig_spark.lakehouse.storage import Files

TREE = ("a.jsonl", "b.json", "c d.jsonl", "[x].jsonl", "{y}.jsonl", "z*.jsonl", ".hidden", "_meta", "sub/a.jsonl",
        "sub/deep/b.jsonl", "k=1/p.parquet", "über.jsonl", "a%20b.jsonl")  # fmt: skip
PATTERNS = (
    "", "/", "nothing", "a.jsonl", "*", "*.jsonl", "*.json*", "?.jsonl", "{a,b}.json*", "{a,sub/a}.jsonl", "[ab].jsonl",
    "[^a]*", "[a-c]*.jsonl", "[x].jsonl", r"\[x\].jsonl", "{y}.jsonl", "z*.jsonl", r"z\*.jsonl", "*/*.jsonl", "über*",
    "**/*.jsonl", "sub", "sub/", "sub//deep", "k=*", "*/../a.jsonl", "{a,{b,c d}}.json*", ".h*", "a%20b.jsonl",
    "sub/*/b.jsonl", "nothing/*", "a.jsonl/*",
)  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".a.jsonl.crc").write_text("checksum")
    return tmp_path


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_operating_system_finds_what_hadoop_finds(spark, tree, pattern):
    path = f"{tree}/{pattern}"
    mine, theirs = Files(spark).find(path), HadoopFiles(spark).find(path)
    assert ([plain(f) for f in mine[0]], mine[1]) == ([plain(f) for f in theirs[0]], theirs[1])


def plain(file):
    return file.path, file.name, file.is_dir, file.is_dir or file.size, file.modified


def test_folders_are_listed_as_hadoop_lists_them(spark, tree):
    mine, theirs = Files(spark).children(str(tree)), HadoopFiles(spark).children(str(tree))
    assert [plain(f) for f in mine] == [plain(f) for f in theirs]
    for folder in ("nothing", "a.jsonl/x"):
        with pytest.raises(InputError, match=r"No such file|Not a directory"):
            Files(spark).children(f"{tree}/{folder}")


def names(folder: Path) -> list[str]:
    """What is there, but for Hadoop's checksums."""
    return [p.name for p in folder.iterdir() if p.suffix != ".crc"]


def test_what_is_written_is_whole_at_every_moment(spark, tmp_path):
    file = tmp_path / "selection.jsonl"
    write_lines(["old"] * 1000, file, spark)
    stop, seen = threading.Event(), set()

    def look() -> None:
        while not stop.is_set():
            # raises, and the set stays empty, where there is no file for a moment
            seen.add(file.read_bytes())
        seen.add(b"looked to the end")

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for k in range(200):
            write_lines(["new" if k % 2 else "old"] * 1000, file, spark)
    finally:
        stop.set()
        looking.join()
    assert seen == {b"old\n" * 1000, b"new\n" * 1000, b"looked to the end"}
    assert names(tmp_path) == ["selection.jsonl"]


def test_an_error_while_it_is_written_leaves_the_old_file(spark, tmp_path):
    for place in (str(tmp_path / "file"), f"viewfs://mine{tmp_path}/file"):
        spark.conf.set("fs.viewfs.mounttable.mine.linkFallback", "file:///")
        try:
            write_lines(["old"], place, spark)
            with pytest.raises(ZeroDivisionError):
                write_lines((f"half {1 // k}" for k in (1, 0)), place, spark)
            assert read_bytes(place, spark) == b"old\n"
            write_lines(["new"], place, spark)
            assert read_bytes(place, spark) == b"new\n"
        finally:
            spark.conf.unset("fs.viewfs.mounttable.mine.linkFallback")
        assert names(tmp_path) == ["file"]
        (tmp_path / "file").unlink()


def test_where_hadoop_cannot_rename_over_a_file_the_old_one_comes_back(spark, tmp_path):
    # TMPDIR may have any letters
    new, files = tmp_path / "a blank%20" / "new", HadoopFiles(spark)
    new.parent.mkdir()
    new.write_text("new")
    place = tmp_path / "out" / "file"
    files.put(new, f"file:{place}")
    assert place.read_text() == "new"
    new.write_text("newer")
    files.put(new, f"file:{place}")
    assert place.read_text() == "newer"
    assert names(place.parent) == ["file"]


def test_mounts_of_databricks_are_the_operating_systems(spark, tmp_path, monkeypatch):
    (tmp_path / "Volumes").mkdir()
    (tmp_path / "Volumes" / "a.jsonl").write_text("{}")
    volume = f"{tmp_path}/Volumes"
    monkeypatch.setattr(storage, "MOUNTS", (volume, "/Workspace", "/dbfs"))
    # a cluster whose paths without a scheme are not local ones, and whose Hadoop refuses: Unity Catalog
    monkeypatch.setattr(storage, "HadoopFiles", refusing)
    with pytest.raises(InputError, match="refused"):
        Files(spark).exists(volume)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    files = Files(spark)
    assert [f.path for f in files.find(f"{volume}/*")[0]] == [f"{volume}/a.jsonl"]
    assert [f.path for f in files.children(volume)] == [f"{volume}/a.jsonl"]
    assert files.read(f"{volume}/a.jsonl") == files.head(files.find(volume + "/a.jsonl")[0][0], 9) == b"{}"
    assert files.absolute(f"{volume}/x") == f"{volume}/x"
    assert files.absolute("/Workspace/x") == "file:/Workspace/x"
    assert files.absolute("/dbfs/x") == "dbfs:/x"
    write_lines(["one"], f"{volume}/new/file", spark)
    assert read_bytes(f"{volume}/new/file", spark) == b"one\n"
    files.remove_folder(f"{volume}/new/file", empty_parents=1)
    assert not files.exists(f"{volume}/new")
    with pytest.raises(InputError, match="refused"):
        files.exists("/elsewhere")


def refusing(spark):
    raise InputError("refused")


def test_paths_without_a_scheme_follow_the_default_file_system(spark):
    assert Files(spark).os_path("/data/x") == "/data/x"
    assert Files(spark).os_path("x") == str(Path("x").absolute())
    spark.conf.set("fs.defaultFS", "hdfs://namenode:8020")
    try:
        for path in ("/data/x", "x", "/Volumes/x", "s3://bucket/x"):
            assert Files(spark).os_path(path) is None
        assert Files(spark).os_path("file:///data/x") == "/data/x"
    finally:
        spark.conf.unset("fs.defaultFS")
