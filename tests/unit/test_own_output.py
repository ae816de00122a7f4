"""What a run or a sample writes is none of what it reads."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark import build_config
from mig_spark.config import parse_config
from mig_spark.errors import ConfigError, InputError
from mig_spark.ingest.sources import refuse_own_output
from mig_spark.lakehouse.files import within
from mig_spark.lakehouse.local_files import LocalFiles, matches
from mig_spark.sample import SampleOptions, files_for
from mig_spark.starter import write_starter


@pytest.mark.parametrize(
    ("path", "folder", "inside"),
    [
        ("data/out", "data", "out"), ("data/out/", "./data/", "out"), ("data", "data", ""), ("database", "data", None),
        ("out", ".", "out"), ("/a/b", "file:///a", "b"), ("file:///a/b", "/a", "b"), ("s3://x/a/b", "s3://x/a", "b"),
        ("s3://x/ab", "s3://x/a", None), ("s3://x/a", "a", None), ("data/../out", "data", None),
        ("file:/a/b", "/a", "b"), ("~/a/b", str(Path.home() / "a"), "b"), ("/a//b", "/a/", "b"),
        ("s3a://x/a/b", "s3://x/a", "b"), ("s3://x/a", "s3n://x/a/", ""), ("s3://x//a/b", "s3://x/a//", "b"),
        ("hdfs:///a/b", "hdfs:///a", "b"), ("hdfs://x/a", "s3://x/a", None),
    ],
)  # fmt: skip
def test_what_lies_in_a_folder(path: str, folder: str, inside: str | None) -> None:
    assert within(path, folder) == inside


@pytest.mark.parametrize(
    ("pool", "output", "told"),
    [
        ("pool", "pool/out", "would read this one's tables as records"),
        ("pool", "pool", "would read this one's tables"),
        ("pool", "out", None),
        ("pool", "pool/_out", None),
        ("pool/*", "pool", "would read this one's tables"),
        ("pool/*", "pool/out", "would read this one's tables"),
        ("pool/*", "pool/_out", None),
        ("pool/*.jsonl", "pool", "would read this one's selection.jsonl"),
        ("pool/{a,sel*}.jsonl", "./pool/", "would read this one's selection.jsonl"),
        ("pool/part-[0-9].jsonl", "pool", None),
        ("pool/*.jsonl", "pool/out", None),
        ("*", "out", "would read this one's tables"),
        ("pool/*/day", "pool", None),
        ("s3://b/pool/*.jsonl", "s3://b/pool", "would read this one's selection.jsonl"),
        ("s3://b/pool/*.jsonl", "s3://b/other", None),
        ("s3a://b/pool//*.jsonl", "s3://b/pool", "would read this one's selection.jsonl"),
        ("~/pool/*.jsonl", str(Path.home() / "pool"), "would read this one's selection.jsonl"),
        ("s3n://b/pool", "s3a://b/pool/out", "would read this one's tables as records"),
        ("file:///a/*.jsonl", "/a", "would read this one's selection.jsonl"),
        ("out/a.jsonl", "out", None),
        ("out/selection.jsonl", "out", "is what a run with output.path = out writes over"),
        ("out/tables/pool", "out", "writes over"),
        ("out/exports/trl", "out", "writes over"),
    ],
)
def test_an_output_that_is_read_is_refused(pool: str, output: str, told: str | None) -> None:
    config = build_config({"pool": {"path": ["other", pool]}, "output": {"path": output}})
    if told is None:
        refuse_own_output(config.pool, config.output)
        return
    with pytest.raises(InputError, match=told):
        refuse_own_output(config.pool, config.output)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.text("ab*?[]{},", min_size=1, max_size=5), min_size=1, max_size=2),
    st.sets(st.text("ab", min_size=1, max_size=3), max_size=5),
)
def test_patterns_match_by_what_is_written_as_they_match_what_is_there(parts: list[str], names: set[str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            (Path(scratch) / name).mkdir()
            for other in names:
                (Path(scratch) / name / other).mkdir()
        pattern = "/".join([scratch, *parts])
        there = [Path(scratch), *Path(scratch).glob("*"), *Path(scratch).glob("*/*")]
        found, named = LocalFiles(str).find(pattern)
        if not named:
            assert sorted(f.path for f in found) == sorted(str(p) for p in there if matches(pattern, str(p)))


def test_the_first_config_of_a_folder_has_its_output_where_the_pool_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"What is {k} plus {k}?", "response": f"It is {2 * k}."} for k in range(30)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    _, config = write_starter(["."], out="config.yaml", columns={})
    refuse_own_output(config.pool, config.output)
    assert str(config.output.path).startswith("_mig-")


def test_a_sample_is_not_written_over_what_it_reads(tmp_path: Path) -> None:
    pool, tags = tmp_path / "pool.jsonl", tmp_path / "tags.json"
    link = tmp_path / "link.jsonl"
    link.symlink_to(pool)
    for out, stats in (
        (pool, None),
        (link, None),
        (tags, None),
        (tmp_path / "a", pool),
        (tmp_path / "a", tmp_path / "a"),
    ):
        options = SampleOptions([str(pool)], str(out), valid_tag_path=str(tags))
        with pytest.raises(InputError, match="would be written over"):
            files_for(options, [str(stats)] if stats else [])


def test_a_sample_is_not_written_where_the_next_one_reads(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "*.jsonl"):
        options = SampleOptions([str(source)], str(tmp_path / "out.jsonl"))
        with pytest.raises(InputError, match="the next sample would read it as records"):
            files_for(options)
    row = json.dumps({"labels": ["a"], "score": 1.0})
    (tmp_path / "pool.jsonl").write_text(f"{row}\n")
    assert files_for(SampleOptions([str(tmp_path)], str(tmp_path / "_out.jsonl")), [str(tmp_path.parent / "s.json")])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("select: {budget: 5}\nselect: {seed: 1}", r"the key 'select' is there twice, first in line 3.*line 4"),
        ("select:\n  budget: 5\n  seed: 1\n  budget: 6", r"the key 'budget' is there twice, first in line 4.*line 6"),
        ("select: {budget: 5, budget: 6}", r"the key 'budget' is there twice, first in line 3.*line 3"),
        ("graph: {threshold: on}", "threshold is a number, and true is none"),
        ("annotate: {tagger: {kind: distilled, dtype: bfloat16}}", "another kind of annotate.tagger has this key"),
        ("select: {budget: yes}", "budget is a number, and true is none"),
        ("select: {budget: 010}", r"010 is YAML's way to write 8 to the base 8: write 8, or text in quotes \(line 3"),
        ("lock: {ttl_minutes: 60:30}", "60:30 is YAML's way to write 3630 to the base 60"),
        ("select: {norm: 1:30.5}", "1:30.5 is YAML's way to write 90.5 to the base 60"),
        ("seed: off", "seed is a number, and false is none"),
    ],
)
def test_what_a_config_does_not_mean_is_refused(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_config(f"pool: {{path: pool}}\noutput: {{path: out}}\n{text}")


def test_numbers_are_read_as_people_write_them() -> None:
    def seed(text: str) -> int:
        return parse_config("pool: {path: pool}\noutput: {path: out}", [f"seed={text}"]).seed

    assert [seed("0"), seed("7"), seed("1_000"), seed("0x10")] == [0, 7, 1000, 16]
    with pytest.raises(ConfigError, match=r"--set 'seed=0_7': 0_7 is YAML's way to write 7 to the base 8"):
        seed("0_7")
