"""`mig-spark init`: what it sees in pools of every form, and that the config it writes is one."""

from __future__ import annotations

import gzip
import json
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from formats import FORMATS
from hypothesis import given
from hypothesis import strategies as st

from mig_spark import starter, survey
from mig_spark.cli.base import cli
from mig_spark.config import DEFAULT_MODEL, PoolConfig, load_config, parse_config
from mig_spark.errors import ConfigError, InputError
from mig_spark.ingest.sources import find_parts
from mig_spark.kernels.ingest.chat import parse_record
from mig_spark.kernels.ingest.seen import Seen
from mig_spark.starter import MULTILINGUAL, choose_tagger, describe_survey, starter_text, write_starter
from mig_spark.survey import Survey, survey_pool

ASK = "What is the largest of the lakes in the north, and how deep is it?"
ANSWER = "It is the one that you see from the hill, and it is about ninety metres deep."


@pytest.fixture(autouse=True)
def no_jvm(monkeypatch):
    def refuse(_settings):
        raise AssertionError("Spark was started")

    monkeypatch.setattr(survey, "open_session", refuse)


def lines(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def started(path, tmp_path, **more):
    out = tmp_path / "made.yaml"
    found, config = write_starter([str(path)], str(out), columns=more.pop("columns", {}), force=True, **more)
    assert load_config(out) == config
    assert config.pool.path == str(path)
    # comments in one line
    return found, config, re.sub(r"\n *# ", " ", out.read_text(encoding="utf-8"))


@pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
def test_every_form_of_a_record_is_named_as_ingest_names_it(one, tmp_path):
    found, _, text = started(lines(tmp_path / "pool.jsonl", [one.record] * 3), tmp_path)
    row = parse_record(json.dumps(one.record))
    assert found.seen.schemas == {row.schema: 3} == {one.schema: 3}
    assert found.seen.kinds == {row.kind: 3} == {one.kind: 3}
    assert (found.rows, found.counted) == (3, True)
    assert f"Recognised: {one.schema} 100% of 3" in text
    assert f"of the kind {one.kind};" in text


@pytest.mark.parametrize("form", ["lines", "array", "gzipped lines", "gzipped array", "parquet", "folder", "glob"])
def test_every_file_form_gives_the_same(form, tmp_path):
    records = [{"id": f"r{k}", "prompt": f"{ASK} {k}", "completion": ANSWER, "nested": {"a": None}} for k in range(40)]
    array, text = json.dumps(records), "".join(json.dumps(r) + "\n" for r in records)
    where = tmp_path / "pool"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), where := tmp_path / "pool.parquet", row_group_size=7)
    elif form in ("folder", "glob"):
        where.mkdir()
        lines(where / "a.jsonl", records[:25])
        (where / "b.json").write_text(json.dumps(records[25:]))
        where = where / "*.json*" if form == "glob" else where
    else:
        where = tmp_path / ("pool.json" if "array" in form else "pool.jsonl")
        content = (array if "array" in form else text).encode()
        where.write_bytes(gzip.compress(content) if "gz" in form else content)
    found, config, _ = started(where, tmp_path)
    assert (found.rows, found.counted, found.seen.usable, found.seen.with_id) == (40, True, 40, 40)
    assert found.seen.schemas == {"pair": 40}
    assert found.seen.languages == {"English": 40}
    assert config.select.budget == 2
    assert ("gzipped" in found.forms[0]) == ("gz" in form)


def test_values_that_python_has_no_type_for_are_texts(tmp_path):
    far, nowhere = pa.array([3_000_000], pa.date32()), pa.array([1], pa.timestamp("us", "Mars/Phobos"))
    columns = {"prompt": ["a"], "completion": ["b"], "u": pa.array([b"x" * 16], pa.uuid()), "d": far, "t": nowhere}
    pq.write_table(pa.table(columns), tmp_path / "pool.parquet")
    found = survey_pool(PoolConfig(path=str(tmp_path)))
    assert (found.rows, found.seen.usable) == (1, 1)
    pq.write_table(pa.table({"s": pa.StructArray.from_arrays([far], ["d"])}), tmp_path / "pool.parquet")
    with pytest.raises(InputError, match=r"pool\.parquet as Parquet: the column s \(struct"):
        survey_pool(PoolConfig(path=str(tmp_path)))


@pytest.mark.parametrize("form", ["lines", "gzipped lines", "array", "gzipped array"])
def test_the_rows_of_a_large_pool_are_estimated_from_pieces(form, tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(survey, "_PIECE_BYTES", 20_000)
    draw = random.Random(3)
    records = [
        {"prompt": f"{k} {draw.random()} " + ASK[: draw.randrange(10, 60)], "completion": ANSWER} for k in range(9_000)
    ]
    content = json.dumps(records) if "array" in form else "\n".join(map(json.dumps, records))
    path = tmp_path / ("pool.json" if "array" in form else "pool.jsonl")
    path.write_bytes(gzip.compress(content.encode()) if "gz" in form else content.encode())
    found = survey_pool(PoolConfig(path=str(path)))
    assert not found.counted
    assert 0.9 * 9_000 < found.rows < 1.1 * 9_000
    assert not found.seen.rejected, "a piece that begins or ends inside a record"
    assert "estimated" in found.notes[0]
    if form == "lines":
        # pieces from the whole file, not from its beginning
        assert found.seen.usable > 3_000


@pytest.mark.parametrize("long", [30_000, 300_000])
def test_long_lines_among_short_ones_count_with_their_bytes(long, tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(survey, "_PIECE_BYTES", 5_000)
    monkeypatch.setattr(survey, "_LOOKED_AT", 15_000)
    draw = random.Random(3)
    records = [
        {
            "id": f"r{k}",
            "prompt": f"{k} {draw.random()}",
            "completion": ANSWER * (long // 50 if k % 1_500 == 700 else 1),
        }
        for k in range(15_000)
    ]
    path = lines(tmp_path / "pool.jsonl", records)
    config = PoolConfig(path=str(path), max_record_bytes=1 << 17)
    found = survey.survey_parts(find_parts(None, config), config, None, keep=15_000)
    assert 0.7 * 15_000 < found.rows < 1.3 * 15_000
    ids = [row.id for row in found.seen.sample]
    assert len(ids) == len(set(ids)), "no record is found by two pieces"


def test_a_long_line_near_the_beginning_of_a_small_pool_hides_no_record(tmp_path):
    records = [{"prompt": f"{k}", "completion": ANSWER * (60_000 if k == 3 else 1)} for k in range(70)]
    found = survey_pool(PoolConfig(path=str(lines(tmp_path / "pool.jsonl", records))))
    assert (found.rows, found.seen.records) == (70, 70)


def test_files_count_by_their_size_in_a_large_pool(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_WHOLE_BYTES", 1000)
    lines(tmp_path / "large.jsonl", [{"prompt": f"{k}", "completion": "yes"} for k in range(9_000)])
    lines(tmp_path / "small.jsonl", [{"messages": [{"role": "user", "content": "a"}]}] * 100)
    seen = survey_pool(PoolConfig(path=str(tmp_path))).seen
    assert 0.005 < seen.schemas["messages"] / seen.usable < 0.02


def test_files_count_by_their_rows_where_all_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(survey, "_LOOKED_AT", 100)
    monkeypatch.setattr(survey, "_PIECE_BYTES", 2_000)
    for name, rows in (("a", 500), ("b", 1_500), ("c", 2)):
        records = [{"prompt": f"{k}", "completion": "yes", "source": name} for k in range(rows)]
        lines(tmp_path / f"{name}.jsonl", records)
    found = survey_pool(PoolConfig(path=str(tmp_path)))
    assert (found.rows, found.counted) == (2_002, True)
    assert 80 <= found.seen.records <= 120
    assert 0.2 < found.seen.sources["a"] / found.seen.records < 0.3
    assert found.seen.sources["c"], "no file is left out"


def test_a_column_that_no_record_has_is_told(tmp_path):
    path = lines(tmp_path / "pool.jsonl", [{"id": "a", "q": ASK, "completion": ANSWER}] * 3)
    with pytest.raises(InputError, match=r"none has the key 'zz', which --column prompt=zz names; the first of them"):
        started(path, tmp_path, columns={"prompt": "zz"})
    found, config, _ = started(path, tmp_path, columns={"prompt": "q", "source": "origin", "score": ""})
    assert found.notes == ["no record that was looked at has the key 'origin', which --column source=origin names"]
    assert "no record that was looked at has the key 'origin'" in describe_survey(found, config)


def test_mixed_kinds_and_rejected_records_are_told(tmp_path):
    pair = {"prompt": ASK, "chosen": ANSWER, "rejected": "No."}
    path = lines(tmp_path / "pool.jsonl", [{"prompt": ASK, "completion": ANSWER}] * 3 + [pair] + [{"a": 1}])
    found, config, text = started(path, tmp_path)
    assert found.seen.kinds == {"sft": 3, "preference": 1}
    assert config.pool.kinds is None
    assert "several kinds of rows: sft 75%, preference 25%" in text
    assert "null keeps all of them. kinds: [sft]" in text
    assert "Rejected: 1 of 5, `unknown schema`" in text


def test_no_reason_of_a_rejection_is_kept_to_itself(tmp_path):
    bad = [
        5,
        5,
        5,
        {"a": 1},
        {"a": 1},
        {"prompt": ASK, "completion": ""},
        {"prompt": ASK, "completion": " "},
        {"messages": []},
    ]
    path = lines(tmp_path / "pool.jsonl", [{"prompt": ASK, "completion": ANSWER}] * 9 + bad)
    with Path(path).open("a", encoding="utf-8") as file:
        file.write('{"prompt": "cut\n')
    found, config, _ = started(path, tmp_path)
    told = [line for line in describe_survey(found, config).splitlines() if line.startswith("  rejected")]
    assert len(found.seen.rejected) == 5
    assert len(told) == 4
    assert all(reason in "".join(told) for reason in found.seen.rejected)
    assert "  2 more: " in told[-1]


def test_labels_and_scores_that_rows_bring_are_taken(tmp_path):
    records = [{"prompt": f"{k}", "completion": "b", "labels": ["x", f"y{k}"], "score": k} for k in range(100)]
    _, config, text = started(lines(tmp_path / "all.jsonl", records), tmp_path)
    assert (config.annotate.tagger.kind, config.annotate.scorer.kind) == ("column", "column")
    assert "vocabulary: {enabled: true}" in text
    # a tenth without labels would be rejected, so no
    for record in records[::10]:
        del record["labels"]
    _, config, text = started(lines(tmp_path / "some.jsonl", records), tmp_path)
    assert (config.annotate.tagger.kind, config.annotate.scorer.kind) == ("embedding", "heuristic")
    assert "The rows bring labels in part only" in text
    assert "bring a score" in text


def test_columns_of_other_names_are_proposed(tmp_path):
    records = [
        {"q": f"how {k}", "a": "so", "uuid": f"u{k}", "stars": k / 7, "tags": ["x"], "dataset": "ab"[k % 2],
         "url": f"http://x/{k}", "ok": True}
        for k in range(50)
    ]  # fmt: skip
    _, config, text = started(lines(tmp_path / "p.jsonl", records), tmp_path, columns={"prompt": "q", "response": "a"})
    assert config.pool.columns == {"prompt": "q", "response": "a", "source": "dataset"}
    for said in ("id: uuid", "labels: tags", "score: stars"):
        assert f"could be, if that is what it means: {said}" in text
    assert "id: q" not in text
    assert ": ok" not in text


def test_ids_that_several_contents_share_are_not_used(tmp_path):
    records = [{"id": k % 5, "prompt": f"{ASK} {k}", "completion": ANSWER} for k in range(50)]
    survey, config, text = started(lines(tmp_path / "p.jsonl", records), tmp_path)
    assert config.pool.columns == {"id": ""}
    assert "45 of 50 rows share their id" in text
    assert "ids          the hash of a row's content: of 50 rows, 45 with" in describe_survey(survey, config)


def test_the_tagger_fits_language_and_size(monkeypatch):
    monkeypatch.setattr(starter, "cpu_has_bfloat16", lambda: False)

    def tagger(rows, **languages):
        seen = Seen()
        seen.schemas.update(pair=100)
        seen.languages.update(languages)
        return choose_tagger(Survey("p", ["a file"], seen, rows=rows))

    assert tagger(5_000, English=100)[0] == {"kind": "embedding"}
    assert tagger(None, English=100)[0] == {"kind": "embedding"}
    kind, reasons = tagger(10**8, English=100)
    assert kind == {"kind": "distilled"}
    assert "hours" in reasons[0]
    kind, reasons = tagger(5_000, Chinese=60, English=40)
    assert kind == {"kind": "embedding", "model": MULTILINGUAL}
    assert DEFAULT_MODEL in reasons[0]
    assert tagger(5_000, Chinese=10, English=90)[0] == {"kind": "embedding"}
    monkeypatch.setattr(starter, "cpu_has_bfloat16", lambda: True)
    kind, reasons = tagger(5_000, English=100)
    assert kind == {"kind": "embedding", "dtype": "bfloat16"}
    assert "CPU has instructions" in reasons[0]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no records in"),
        (b'{"q": "how", "a": "so"}\n', "no known schema among the keys 'a', 'q') begins with {\"q\": \"how\", \"a\": "
         "\"so\"}; a record is an object with keys such as: messages"),
        (b'{"a": 1\n', "1 are `broken JSON`"),
        (b'["a", "b"]', "2 are `not an object`"),
        (bytes(range(256)), "is text, neither JSON nor Parquet"),
        (b"PK\x03\x04more", "a zip file (gzip is read)"),
        (gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 9)[:-9], "broken gzip data"),
    ],
    # gzip writes the time into its bytes, and workers must agree on names
    ids=["empty", "other keys", "broken JSON", "no objects", "bytes", "zip", "cut gzip"],
)  # fmt: skip
def test_what_cannot_be_read_is_one_clear_line(content, words, tmp_path):
    path = tmp_path / ("pool.jsonl" if words.startswith(("no rec", "no kn", "1", "broken")) else "pool")
    path.write_bytes(content)
    with pytest.raises(InputError) as e:
        write_starter([str(path)], str(tmp_path / "c.yaml"), columns={})
    assert words in str(e.value)
    assert not (tmp_path / "c.yaml").exists()


def test_what_is_not_there_or_is_no_data(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").write_text("prompt,completion\na,b\n")
    for path, words in (("none", "nothing at"), ("empty", "no data files in the folder"), ("a.csv", "JSON lines")):
        with pytest.raises(InputError, match=words):
            write_starter([str(tmp_path / path)], str(tmp_path / "c.yaml"), columns={})
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(InputError, match="as Parquet"):
        write_starter([str(tmp_path / "a.parquet")], str(tmp_path / "c.yaml"), columns={})
    with pytest.raises(ConfigError, match=r"pool\.columns has no 'foo'"):
        write_starter([str(tmp_path)], str(tmp_path / "c.yaml"), columns={"foo": "x"})


def test_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "pool.jsonl", [{"prompt": ASK, "completion": ANSWER}] * 30)
    done = CliRunner().invoke(cli, ["init", "pool.jsonl"])
    assert done.exit_code == 0, done.output
    assert "rows         30 rows, counted" in done.output
    assert done.output.endswith("mig-spark run config.yaml\n")
    assert load_config("config.yaml").output.path == "mig-pool"
    before = (tmp_path / "config.yaml").read_bytes()
    done = CliRunner().invoke(cli, ["init", "pool.jsonl", "--output", "elsewhere"])
    assert isinstance(done.exception, InputError)
    assert "config.yaml is there already" in str(done.exception)
    assert (tmp_path / "config.yaml").read_bytes() == before
    done = CliRunner().invoke(cli, ["init", "pool.jsonl", "pool.jsonl", "--output", "elsewhere", "--force"])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["output"] == {"path": "elsewhere"}
    assert CliRunner().invoke(cli, ["init", "pool.jsonl", "--column", "prompt"]).exit_code == 2


NAMES = st.text(min_size=1, max_size=30)


@given(
    st.dictionaries(NAMES, st.one_of(NAMES, st.integers(0), st.lists(NAMES, min_size=1), st.none()), max_size=5),
    st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=30),
)
def test_whatever_a_pool_calls_its_keys_the_config_is_one(more, name):
    """Names of the user's stand in comments and values: no line break or sign of YAML's may end them."""
    seen = Seen()
    for k in range(3):
        seen.add_value({**more, "prompt": f"{ASK} {k}", "completion": ANSWER}, name)
    if not seen.usable:
        return
    pool = PoolConfig(path=f"data/{name}")
    found = Survey(pool.path, ["a file"], seen, rows=3)
    text = starter_text(found, pool, output="mig-out")
    try:
        name.encode()
    except UnicodeEncodeError:
        return  # no path: such a file is refused before
    config = parse_config(text)
    assert config.pool.path == f"data/{name}"
    assert set(config.pool.columns) <= {"source", "id"}
    assert starter.describe_survey(found, config)


def test_a_small_gzipped_file_leaves_the_others_counted(tmp_path: Path) -> None:
    """13 MB beside a few bytes that are gzipped: all of it is read, as it would be without them."""
    line = json.dumps({"prompt": "What is it?", "completion": "word " * 2_000}) + "\n"
    (tmp_path / "a.jsonl").write_text(line * 1_300)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(line.encode()))
    found = survey_pool(PoolConfig(path=str(tmp_path)))
    assert (found.rows, found.counted) == (1_301, True)
    assert not [note for note in found.notes if "estimated" in note]


def test_files_that_are_passed_over_are_named_those_first_that_look_like_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.jsonl", "README.md", "LICENSE", "late.jsonl.zst", "rows.csv", "x.py", "y.py", "z.py"):
        (tmp_path / name).write_text('{"prompt": "a", "completion": "b"}\n')
    find_parts(None, PoolConfig(path=str(tmp_path)))
    (said,) = [r.getMessage() for r in caplog.records if "passed over" in r.getMessage()]
    assert "7 of 8 files" in said
    assert said.endswith(" and 2 more")
    first, second, *_ = said.partition("files: ")[2].split(", ")
    assert {Path(first).name, Path(second).name} == {"late.jsonl.zst", "rows.csv"}
