"""`mig-spark explain`, `runs` and `doctor`: what they say holds."""

from __future__ import annotations

import datetime as dt
import html
import json
from pathlib import Path

import pytest
from test_pipeline import EDGES, LABEL_NAMES, make_rows, record

from mig_spark import build_config, run_pipeline
from mig_spark.compare import compare_selections, describe_comparison, render_comparison, write_comparison
from mig_spark.config import OutputConfig, PoolConfig, build_part, unlike_defaults
from mig_spark.config.run import ReportConfig
from mig_spark.contracts import ANNOTATED, POOL, RUNS, SELECTION, VECTORS
from mig_spark.curation.finished import last_finished, record_finished
from mig_spark.curation.history import describe_run, describe_runs, past_runs
from mig_spark.curation.published import story_of
from mig_spark.curation.stages import STAGES as ALL_STAGES
from mig_spark.doctor import _named_by, _session
from mig_spark.errors import ConfigError, InputError
from mig_spark.explain import describe, explain_pool, explain_rows
from mig_spark.lakehouse.commits import Writer
from mig_spark.lakehouse.tables import Store
from mig_spark.report import collect_report_data

from oracles.dense import Row, dense_greedy, dense_propagation, gain_after
from oracles.endpoint_server import Say, endpoint


@pytest.fixture
def files(tmp_path):
    lines = [json.dumps(record(r)) for r in make_rows()] + ["{broken"]
    lines.append(json.dumps({**record(make_rows()[0]), "_id": "silent", "dialogs": []}))
    lines += 2 * [json.dumps({**record(make_rows()[5]), "_id": "zz-copy"})]  # the second one is rejected
    (tmp_path / "pool.jsonl").write_text("\n".join(lines))
    edges = [{"src": LABEL_NAMES[i], "dst": LABEL_NAMES[j], "weight": w} for i, j, w in EDGES]
    (tmp_path / "edges.jsonl").write_text("\n".join(map(json.dumps, edges)))
    return tmp_path


def config_of(files, **select):
    return build_config({
        "pool": {"path": str(files / "pool.jsonl")},
        "output": {"path": str(files / "out")},
        "annotate": {"tagger": {"kind": "column"}, "scorer": {"kind": "column"}},
        "graph": {"edges_path": str(files / "edges.jsonl"), "threshold": 0.9},
        "select": {"budget": 25, **select},
    })  # fmt: skip


STAGES = ("ingest", "screen", "annotate", "graph", "select")


@pytest.mark.long
def test_a_row_passed_over_is_taken_with_the_score_that_is_said(spark, files):
    config = config_of(files)
    done = run_pipeline(spark, config, STAGES)
    [past] = past_runs(Store(spark, config.output))
    assert (past.run_id, past.status, past.counts["selected"]) == (done["run_id"], "ok", 25)
    now = dt.datetime.now(dt.timezone.utc)
    assert dt.timedelta(0) <= now - past.started_at < dt.timedelta(minutes=30)
    assert past.to_dict()["started_at"].endswith("+00:00")
    assert unlike_defaults(past.config)["select.budget"] == 25
    assert past.run_id in describe_runs([past])
    assert "annotate.tagger" in describe_run(past)
    json.dumps(past.to_dict())
    with pytest.raises(InputError, match="no run 'nobody' is on record"):
        past_runs(Store(spark, config.output), run_id="nobody")

    rows, P = make_rows(), dense_propagation(20, EDGES)
    want, gains = dense_greedy(rows, P, 25)
    over = [r.key for r in rows if r.key not in want][:3]
    first, third, *passed, silent, none, copy = explain_rows(
        spark, config, [want[0], want[2], *over, "silent", "no such row", "zz-copy"]
    )
    assert [(one.id, one.status, one.rank) for one in (first, third)] == [
        (want[0], "selected", 1), (want[2], "selected", 3)
    ]  # fmt: skip
    assert third.gain == pytest.approx(gains[2])
    assert sum(part.gain for part in third.parts) == pytest.approx(gains[2])
    by_key = {r.key: r for r in rows}
    for part in third.parts:
        carriers = [key for key in want[:2] if LABEL_NAMES.index(part.label) in by_key[key].labels]
        assert (part.carried, part.carried_by) == (len(carriers), next(iter(carriers), None))
    for one in passed:
        assert one.status == "passed over"
        assert one.nearest_id == want[one.nearest_rank - 1]
        for factor, comes in ((1.0001, True), (0.9999, False)):
            other = [Row(r.key, r.labels, one.score_needed * factor) if r.key == one.id else r for r in rows]
            assert (one.id in dense_greedy(other, P, 25)[0]) == comes
    _what_covers_rows_passed_over_is_said([*passed, *_weak(spark, config, rows, want, P)], rows, want, P)
    _quoted_rows_have_the_same_reasons(spark, config, want, gains)
    found = _all_rows_are_told_what_each_is_told(spark, config)
    assert {"silent", "zz-copy", *by_key} == set(found)
    assert (silent.status, none.status, copy.status) == ("rejected", "unknown", "a copy")
    assert f"the same content as {rows[5].key}" in copy.reason
    assert "no messages" in silent.reason
    words = describe([first, passed[0], silent])
    assert f"after the last {passed[0].gain_end:.4g}" in words
    assert "; in the end " in words
    assert f"with a score above {passed[0].score_needed:.4g} in place of" in words
    assert f"{want[0]}: selected" in words
    _what_a_run_asked_is_of_the_stage_that_it_did(spark, config, past)


def _weak(spark, config, rows, want, P):
    """What is said of the five rows passed over whose gains were furthest from enough."""
    over = sorted((r for r in rows if r.key not in want), key=lambda r: gain_after([], r, P))
    return explain_rows(spark, config, [r.key for r in over[:5]])


def _what_covers_rows_passed_over_is_said(passed, rows, want, P):
    """Gains before and after the selection, what carries each label, and the labels that would have been enough."""
    by_key = {r.key: r for r in rows}
    picks = [by_key[key] for key in want]
    for one in passed:
        row = by_key[one.id]
        assert one.gain_start == pytest.approx(gain_after([], row, P))
        assert one.gain_end == pytest.approx(gain_after(picks, row, P))
        assert one.gain_start >= one.gain >= one.gain_end
        assert [cover.label for cover in one.covered] == list(one.labels)
        for cover in one.covered:
            label = LABEL_NAMES.index(cover.label)
            carriers = [k for k, pick in enumerate(picks, 1) if label in pick.labels]
            first = (carriers[0], want[carriers[0] - 1]) if carriers else (None, None)
            assert (cover.rows, cover.rank, cover.id) == (len(carriers), *first)
            alone = Row("", (label,), 1.0)
            assert cover.left == pytest.approx(gain_after(picks, alone, P) / gain_after([], alone, P))
        before = picks[: one.nearest_rank - 1]
        more = {k: Row(row.key, (*row.labels, k), row.score) for k in range(20) if k not in row.labels}
        worth = {k: gain_after(before, other, P) for k, other in more.items()}
        enough = sorted((k for k in more if worth[k] > one.nearest_gain), key=lambda k: -worth[k])
        assert one.enough == len(enough)
        assert [worth[LABEL_NAMES.index(name)] for name in one.enough_labels] == pytest.approx(
            [worth[k] for k in enough[:3]]
        )
        for k in enough:
            other = [more[k] if r.key == one.id else r for r in rows]
            assert one.id in dense_greedy(other, P, one.nearest_rank)[0]
    assert len({one.enough for one in passed}) > 1


def _what_a_run_asked_is_of_the_stage_that_it_did(spark, config, past):
    assert past.paid == {}, "the pool brings labels and scores"
    store, asked = Store(spark, config.output, Writer(past.run_id)), {"requests": 3, "prompt_tokens": 1_000}
    record_finished(
        store, config, ALL_STAGES["annotate"], "0" * 64, {"tables": {}, "files": {}},
        counts={**asked, "completion_tokens": 500}, inputs={}, certificate=None, seconds=1.0,
    )  # fmt: skip
    [told] = past_runs(store, price=(1.0, 2.0))
    assert told.paid == {**asked, "completion_tokens": 500, "dollars": pytest.approx(0.002)}
    assert "dollars" not in past_runs(store)[0].paid


def _quoted_rows_have_the_same_reasons(spark, config, want, gains):
    """The report says of each of its rows what `explain` says of it."""
    store = Store(spark, config.output)
    made = last_finished(store, "select")
    data = collect_report_data(store, store.read(ANNOTATED), {"run_id": "r"}, story=story_of(store, config, made))
    assert [row.id for row in data.browse[: len(want)]] == want
    told = {one.id: one for one in explain_rows(spark, config, [row.id for row in data.browse])}
    assert len(told) == len(data.browse) > len(want) + 50
    for row in data.browse:
        one = told[row.id]
        assert (row.why, row.rank, row.gain) == (one.reason, one.rank, one.gain)
        assert list(zip(row.labels, row.parts, row.uses, strict=True)) == [
            (part.label, part.gain, part.carried) for part in one.parts
        ]
    for row, gain in zip(data.browse, gains, strict=False):
        assert sum(row.parts) == pytest.approx(gain)


def _all_rows_are_told_what_each_is_told(spark, config):
    """The table of all rows says what `explain` says of each."""
    found = {row.id: row for row in explain_pool(spark, config).collect()}
    for one in explain_rows(spark, config, list(found)):
        row = found[one.id]
        assert (row.status, row.rank) == (one.status, one.rank)
        assert (row.score, tuple(row.labels or ())) == (one.score, one.labels)
        numbers = ("gain", "nearest_rank", "nearest_id", "nearest_gain", "score_needed", "gain_start", "gain_end")
        assert [row[name] for name in numbers] == [getattr(one, name) for name in numbers]
        if row.reason is not None and one.status != "selected":
            assert one.reason.startswith(row.reason)
        elif one.status == "passed over":
            assert row.nearest_rank is not None
    return found


@pytest.mark.long
def test_what_quotas_and_lists_decided_is_said(spark, files):
    rows = make_rows()
    (files / "exclude.txt").write_text(f"{rows[3].key}\n")
    quotas = {"column": "source", "limits": {"source-1": {"max_share": 0.08}}}
    config = config_of(files, quotas=quotas, exclude=str(files / "exclude.txt"), gain="exact")
    run_pipeline(spark, config, STAGES)
    full = [r.key for r in rows if int(r.key[-1]) % 3 == 1]
    found = {one.id: one for one in explain_rows(spark, config, [rows[3].key, *full])}
    assert set(_all_rows_are_told_what_each_is_told(spark, config)) == {r.key for r in rows} | {"silent", "zz-copy"}
    assert found.pop(rows[3].key).status == "excluded"
    assert sum(one.status == "selected" for one in found.values()) == 2
    other = config_of(files, quotas=quotas, exclude=str(files / "exclude.txt"))
    with pytest.raises(InputError, match="has selected with another section `select`"):
        explain_rows(spark, other, [rows[3].key])
    over = [one for one in found.values() if one.status == "passed over"]
    assert all("'source-1' may have 2 rows and had them from rank" in one.reason for one in over)
    assert all(one.enough is None and one.gain_start > one.gain_end > 0 for one in over)
    assert all(cover.left is None for one in over for cover in one.covered)

    drawn = config_of(files, strategy="random")
    run_pipeline(spark, drawn, STAGES)
    told = explain_rows(spark, drawn, [r.key for r in rows])
    assert sum(one.status == "selected" for one in told) == 25
    assert all("strategy random chose the rows" in one.reason for one in told)
    chosen = [row.labels for row in Store(spark, drawn.output).read(SELECTION).orderBy("rank").collect()]
    for one in told:
        if one.status == "passed over":
            carried = [[k for k, labels in enumerate(chosen, 1) if label in labels] for label in one.labels]
            assert [(c.rows, c.rank) for c in one.covered] == [(len(k), min(k, default=None)) for k in carried]
            assert (one.gain_end, one.enough) == (None, None)
    _all_rows_are_told_what_each_is_told(spark, drawn)


@pytest.mark.long
def test_a_copy_in_a_list_is_the_row_that_stands_for_it(spark, files):
    rows = make_rows()
    (files / "given.txt").write_text("zz-copy\n")
    config = config_of(files, given=str(files / "given.txt"))
    run_pipeline(spark, config, STAGES)
    given, copy = explain_rows(spark, config, [rows[5].key, "zz-copy"])
    assert (given.status, copy.status) == ("given", "a copy")
    [first] = Store(spark, config.output).read(SELECTION).where("rank = 1").collect()
    [told] = explain_rows(spark, config, [first.id])
    # what the given row carries is worth less from the start on
    assert sum(part.gain for part in told.parts) == pytest.approx(first.gain)
    _all_rows_are_told_what_each_is_told(spark, config)


def test_the_doctor_finds_what_a_config_names(spark, files):
    found = {one.what: one for one in (*_session(spark), *_named_by(spark, config_of(files)))}
    for what in (
        "Spark session",
        "Python of executors",
        "packages there",
        "clock of executors",
        "GraphFrames",
        "Delta",
    ):
        assert found[what].good, found[what]
    assert found["pool.path"].said.startswith("1 files")
    assert found["output.path"].good
    assert not (files / "out").exists()
    (files / "blocked").write_text("a file")
    bad = config_of(files).model_copy(update={"output": OutputConfig(path=str(files / "blocked" / "out"))})
    bad = bad.model_copy(update={"pool": PoolConfig(path=str(files / "nothing.jsonl"))})
    found = {one.what: one for one in _named_by(spark, bad)}
    assert (found["pool.path"].good, found["output.path"].good) == (False, False)
    assert "output.database" not in found
    for database, good in (("default", True), ("not_there", False)):
        there = config_of(files).model_copy(update={"output": OutputConfig(database=database)})
        [one] = [one for one in _named_by(spark, there) if one.what == "output.database"]
        assert one.good is good, one
        assert database in one.said


def test_the_doctor_asks_the_endpoints_that_a_config_names(spark, files):
    models = Say(body=json.dumps({"data": [{"id": "judge"}]}).encode())
    with endpoint(lambda *_: Say(500), models=models) as server:
        part = {"kind": "endpoint", "base_url": server.url, "model": "judge"}
        other = {**part, "model": "tagger", "api_key_env": "MIG_SPARK_NO_SUCH_KEY"}
        annotate = {
            "tagger": {"kind": "student", "teacher": other},
            "scorer": {"kind": "combine", "quality": part, "complexity": {"kind": "heuristic"}},
        }
        config = config_of(files)
        config = config.model_copy(update={"annotate": build_part(type(config.annotate), annotate, where="annotate")})
        found = [one for one in _named_by(spark, config) if one.what == "endpoint"]
    assert [one.good for one in found] == [False, True], found
    assert "MIG_SPARK_NO_SUCH_KEY is not set" in found[0].said
    assert "has judge" in found[1].said
    assert server.requests == 0


def _page_of(spark, config, found, told):
    """The page has the text of a row that it tells, and none where rows must not be quoted."""
    where = Path(config.output.path) / "compared.html"
    asked = {
        row["id"]: next(m["content"] for m in row["messages"] if m["role"] == "user")
        for row in Store(spark, config.output).read(POOL).where(f"id = '{told}'").collect()
    }
    assert write_comparison(spark, config, found, where) == str(where)
    begins = html.escape(asked[told][:30])
    assert begins in where.read_text()
    for excerpts, named in (("ids", True), ("none", False)):
        quiet = config.model_copy(update={"report": ReportConfig(excerpts=excerpts)})
        write_comparison(spark, quiet, found, where)
        assert begins not in where.read_text()
        assert (told in where.read_text()) == named


@pytest.mark.long
def test_two_selections_are_compared(spark, files):
    config = config_of(files)
    one = run_pipeline(spark, config, STAGES)["run_id"]
    first = [row["id"] for row in Store(spark, config.output).read(SELECTION).orderBy("rank").collect()]
    pool = {row["id"] for row in Store(spark, config.output).read(ANNOTATED).collect()}
    other = run_pipeline(spark, config_of(files, budget=10, gain="exact"), STAGES)["run_id"]
    second = [row["id"] for row in Store(spark, config.output).read(SELECTION).orderBy("rank").collect()]

    found = compare_selections(spark, config, one, other)
    assert (found.a.rows, found.b.rows, found.common) == (25, 10, len(set(first) & set(second)))
    assert found.prefixes[-1] == (10, len(set(first[:10]) & set(second)))
    assert found.config == {"select.budget": (25, 10), "select.gain": ("gradient", "exact")}
    assert found.pool is None
    [why] = found.only_a
    alone = [i for i in first if i not in second]
    assert (why.rows, [row.id for row in why.examples]) == (25 - found.common, alone[:5])
    assert [row.rank for row in why.examples] == [first.index(i) + 1 for i in alone[:5]]
    assert all(row.labels and row.other_labels is None and row.other_score is None for row in why.examples)
    assert "the same labels and score" in why.reason
    assert found.a.measures["objective"] > found.b.measures["objective"] > 0
    assert (found.a.pool, found.by_chance()) == (len(pool), pytest.approx(25 * 10 / len(pool)))
    rows = {row["id"]: row for row in Store(spark, config.output).read(ANNOTATED).collect()}
    covered = [len({label for i in first[:k] for label in rows[i]["labels"]}) for k in range(1, 26)]
    assert (list(found.a.firsts.rank), list(found.a.firsts.labels)) == (list(range(1, 26)), covered)
    assert found.a.firsts.objective[-1] == found.a.measures["objective"]
    assert found.labels.both + found.labels.only_a == covered[-1] == found.a.measures["labels"]
    _page_of(spark, config, found, alone[0])

    listed = files / "listed.jsonl"
    ids = [*reversed(first[:5]), "zz-copy", "silent", "nobody"]
    listed.write_text("\n".join(json.dumps({"id": i}) for i in ids))
    again = compare_selections(spark, config, str(listed), one)
    assert (again.a.rows, again.a.measures["found"], again.common) == (8, 5, 5)
    assert {one.reason.partition(" (")[0]: [row.id for row in one.examples] for one in again.only_a} == {
        "it is a copy of a row that stands for it": ["zz-copy"],
        "it is rejected": ["silent"],
        "it is not in the pool": ["nobody"],
    }
    assert again.config is None
    assert sum(again.b.sources.values()) == 25
    assert set(first) <= pool
    assert "it is a copy of a row" in describe_comparison(again)
    json.dumps(again.to_dict())
    with pytest.raises(InputError, match=r"'nowhere' cannot be compared: no run has this id, and there is no file"):
        compare_selections(spark, config, one, "nowhere")
    (files / "empty.csv").write_text("name\nx\n")
    with pytest.raises(InputError, match=r"as a list of ids it cannot be read \(.*name\)\. Give the id of a run"):
        compare_selections(spark, config, one, str(files / "empty.csv"))
    listed.write_text("\n".join(json.dumps({"id": i}) for i in "aba"))
    with pytest.raises(InputError, match="'a' is there more than once"):
        compare_selections(spark, config, one, str(listed))


@pytest.mark.long
def test_strategies_and_the_published_selection_are_compared_by_name(spark, files, caplog):
    """What a strategy would take is what it takes in a run of its own, and comparing writes nothing."""
    config = config_of(files, gain="exact")
    made = run_pipeline(spark, config, STAGES)["run_id"]
    store = Store(spark, config.output)
    first = [row["id"] for row in store.read(SELECTION).orderBy("rank").collect()]
    before = {path: path.stat().st_mtime_ns for path in Path(config.output.path).rglob("*")}

    with caplog.at_level("WARNING", "mig_spark"):
        found = compare_selections(spark, config, "selection", "strategy:random")
    assert "strategy random does not go by it: select.gain" in caplog.text
    assert (found.a.name, found.a.run_id, found.a.rows) == ("selection", made, 25)
    assert (found.b.strategy, found.b.run_id, found.b.rows) == ("random", None, 25)
    assert found.a.measures["objective"] > found.b.measures["objective"] > 0
    assert found.config == {
        "select.gain": ("exact", "gradient"), "select.strategy": ({"kind": "mig"}, {"kind": "random"})
    }  # fmt: skip
    words = describe_comparison(found).splitlines()
    assert words[0] == f"A  selection, selected by run {made}: 25 rows"
    assert words[1] == "B  strategy:random, chosen for this comparison: 25 rows"
    page = render_comparison(found, {})
    assert "B was chosen for this comparison, by the config as it is now" in page
    assert "list of ids" not in page

    # options; a strategy that the config has, with the options that it has there; vectors that nobody has made yet
    most = compare_selections(spark, config, "strategy:{kind: top, by: labels}", "strategy:mig")
    assert most.b.measures["objective"] == pytest.approx(found.a.measures["objective"])
    assert most.common == len({row.id for row in _of_most_labels(spark, store)} & set(first))
    assert {path: path.stat().st_mtime_ns for path in Path(config.output.path).rglob("*")} == before

    # what a run published that failed in a stage after `select`
    spark.sql(f"UPDATE {store.sql_name(RUNS)} SET status = 'failed' WHERE run_id = '{made}'")
    failed = compare_selections(spark, config, "selection", "strategy:random")
    assert (failed.a.run_id, failed.a.measures, failed.config) == (made, found.a.measures, found.config)
    spark.sql(f"DELETE FROM {store.sql_name(RUNS)} WHERE run_id = '{made}'")
    unknown = compare_selections(spark, config, "selection", "strategy:random")
    assert (unknown.a.measures, unknown.config) == (found.a.measures, None)

    for strategy, side in (("random", found.b), ({"kind": "top", "by": "labels"}, most.a)):
        run_pipeline(spark, config_of(files, strategy=strategy), STAGES)
        again = compare_selections(spark, config, "selection", "strategy:mig")
        assert (again.a.rows, again.a.measures) == (side.rows, side.measures)
        assert again.common == (found.common if strategy == "random" else most.common)


def _of_most_labels(spark, store):
    from pyspark.sql import functions as sf

    return store.read(ANNOTATED).orderBy(sf.desc(sf.size("labels")), "id").limit(25).collect()


@pytest.mark.long
@pytest.mark.model
def test_vectors_that_a_comparison_needs_are_not_kept(spark, files):
    config = config_of(files)
    run_pipeline(spark, config, STAGES)
    found = compare_selections(spark, config, "selection", "strategy:k_center")
    assert (found.b.strategy, found.b.rows) == ("k_center", 25)
    assert not Store(spark, config.output).exists(VECTORS)
    run_pipeline(spark, config_of(files, strategy="k_center"), STAGES)
    assert compare_selections(spark, config, "selection", "strategy:k_center").common == 25


@pytest.mark.long
def test_what_cannot_be_compared_ends_in_one_line(spark, files):
    config = config_of(files)
    run_pipeline(spark, config, STAGES[:3])
    run_pipeline(spark, config, ("graph",))
    for name, error, said in (
        (
            "random",
            InputError,
            r"'random' cannot be compared: no run has this id.*the id of a run .*`selection`.*`strategy:NAME`.*ids",
        ),
        ("strategy:best", ConfigError, r"compare: strategy.*known are mig, random, "),
        ("strategy:", ConfigError, r"'strategy:' names no strategy: write strategy:random, or"),
        ("strategy:[1, 2]", ConfigError, r"names no strategy: write strategy:random, or"),
        ("strategy:{kind: top, of: labels}", ConfigError, "compare: unknown key 'strategy.of'"),
        ("selection", InputError, r"no selection at .*: run the stage `select` first"),
    ):
        with pytest.raises(error, match=said) as told:
            compare_selections(spark, config, name, "strategy:top")
        assert "\n" not in str(told.value)
    # the labels of another pool would count for nothing in the objective, and the rows are not those of this one
    with (files / "pool.jsonl").open("a") as out:
        out.write("\n" + json.dumps({**record(make_rows()[0]), "_id": "new"}))
    run_pipeline(spark, config, STAGES[:2])
    with pytest.raises(InputError, match=r"the table `pool` has changed.*run the stage `annotate` again"):
        compare_selections(spark, config, "strategy:random", "strategy:top")
    run_pipeline(spark, config, STAGES[2:3])
    with pytest.raises(InputError, match="run the stage `graph` again"):
        compare_selections(spark, config, "strategy:random", "strategy:top")
