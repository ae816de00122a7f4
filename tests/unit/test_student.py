"""Students: what they learn, what they say of rows, how far that is what the teacher says, what tells them apart."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from mig_spark.annotation.annotators import make_scorer, make_tagger, run_annotators
from mig_spark.annotation.drawn_rows import Drawn
from mig_spark.annotation.learning import LEAST_ROWS, fit, warn_of_growth
from mig_spark.annotation.students import see_that_it_agrees, told
from mig_spark.config import build_config
from mig_spark.curation.fresh import made_with
from mig_spark.errors import AnnotationError, ConfigError, DependencyError
from mig_spark.kernels.annotation import student as kernel
from mig_spark.kernels.annotation.student import Student
from mig_spark.summary import _annotation

D = 8


class Conf:
    """Only what `make_tagger` asks a session for."""

    class conf:  # noqa: N801
        @staticmethod
        def get(key: str, default: str) -> str:
            return default


def config(**annotate: Any) -> Any:
    return build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": annotate}).annotate


def tagger(teacher: dict[str, Any] | None = None, **keys: Any) -> Any:
    return make_tagger(
        config(tagger={"kind": "student", "teacher": teacher or {"kind": "column"}, **keys}).tagger, Conf()
    )


def scorer(teacher: dict[str, Any] | None = None, **keys: Any) -> Any:
    section = {"kind": "student", "teacher": teacher or {"kind": "heuristic"}, **keys}
    return make_scorer(config(scorer=section).scorer, Conf())


def column(vectors: np.ndarray, gone: set[int] = frozenset()) -> pa.ListArray:
    rows = [None if k in gone else row.tolist() for k, row in enumerate(vectors)]
    return pa.array(rows, pa.list_(pa.float32()))


def unit(n: int, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(n, D))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def grouped(n: int, seed: int, groups: int = 4) -> tuple[np.ndarray, list[int]]:
    """Vectors near to one of some directions, and to which."""
    of = [int(k) for k in np.random.default_rng(seed).integers(0, groups, n)]
    made = np.eye(D, dtype=np.float32)[of] + 0.3 * unit(n, seed + 1)
    return made / np.linalg.norm(made, axis=1, keepdims=True), of


# what a config may say


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, "teacher"),
        ({"teacher": {"kind": "student", "teacher": {"kind": "column"}}}, "cannot stand here, but column, embedding"),
        ({"teacher": {"kind": "embedding", "top": 0}}, "annotate.tagger.teacher.top = 0"),
        ({"teacher": {"kind": "column"}, "strata": ["answer"]}, "annotate.tagger.strata"),
        ({"teacher": {"kind": "column"}, "rows": 10}, "annotate.tagger.rows = 10"),
        ({"teacher": {"kind": "column"}, "held_out": 0}, "annotate.tagger.held_out = 0"),
    ],
)
def test_a_section_that_makes_no_student_is_told(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=r"annotate\.tagger") as e:
        config(tagger={"kind": "student", **section})
    assert said in str(e.value)


def test_a_student_is_no_half_of_combine_and_combine_may_teach() -> None:
    halves = {"kind": "combine", "quality": {"kind": "heuristic"}, "complexity": {"kind": "heuristic"}}
    assert scorer(halves).lesson.teacher.name.startswith("combine")
    with pytest.raises(ConfigError, match="cannot stand here"):
        config(scorer={**halves, "quality": {"kind": "student", "teacher": {"kind": "heuristic"}}})


def test_rows_without_a_pool_have_no_student() -> None:
    class Rows:
        columns = ("messages",)

    with pytest.raises(ConfigError, match="a student of heuristic learns from a sample of a whole pool"):
        run_annotators(Rows(), [scorer()], ["id"], with_cost=False)  # type: ignore[arg-type]


# what tells students apart


def test_the_recipe_changes_with_what_a_fit_follows_from_and_with_nothing_else() -> None:
    made = [
        tagger(), scorer(), tagger(rows=3000), tagger(seed=1), tagger(strata=[]), tagger(strata=["kind"]),
        tagger(held_out=0.3), tagger(embedding="model"), tagger({"kind": "embedding"}),
        tagger({"kind": "embedding", "floor": 0.3}), tagger({"kind": "embedding", "top": 3}),
        tagger({"kind": "embedding", "hubs": 3.0}),
    ]  # fmt: skip
    recipes = [one.lesson.recipe for one in made]
    assert len(set(recipes)) == len(recipes)
    same = [tagger(least_agreement=0.9), tagger(allow_disagreement=True), tagger(strata=["source", "source"])]
    assert {one.lesson.recipe for one in same} == {recipes[0]}
    # what a teacher's answers do not follow from
    judge = {"kind": "endpoint", "model": "judge"}
    near, far = (scorer({**judge, "base_url": url}).lesson.recipe for url in ("http://a/v1", "http://b/v1"))
    assert near == far


def test_the_version_changes_with_recipe_sample_and_fit() -> None:
    vectors, of = grouped(60, 1)
    one = kernel.fit_labels(vectors, [[f"label {k}"] for k in of])
    other = replace(one, bias=one.bias + np.float32(1e-6) * np.abs(one.bias))
    assert one.digest() != other.digest()
    lesson = tagger().lesson
    made = [
        lesson.ready(one, "sample"), lesson.ready(other, "sample"), lesson.ready(one, "another"),
        tagger(seed=1).lesson.ready(one, "sample"),
    ]  # fmt: skip
    assert len({a.version for a in made}) == 4
    assert {a.name for a in made} == {"student of column"}
    assert made[0].version == tagger().lesson.ready(one, "sample").version
    assert made[0].step is not None
    assert not made[0].slow
    assert tagger().step is None
    assert tagger(embedding="model").lesson.ready(one, "sample").slow


# labels


@st.composite
def tables(draw: Any) -> tuple[np.ndarray, np.ndarray, int, int]:
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    values = draw(st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0]), min_size=n * k, max_size=n * k))
    has = draw(st.lists(st.booleans(), min_size=n * k, max_size=n * k))
    unlearned = draw(st.integers(0, 3))
    return np.reshape(values, (n, k)), np.reshape(has, (n, k)).astype(float), draw(st.integers(1, 3)), unlearned


def chosen_one_by_one(values: np.ndarray, threshold: float, top: int, always: bool) -> list[list[int]]:
    out = []
    for row in values:
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        kept = [k for k in order if row[k] >= threshold][:top]
        out.append(kept or order[:1] if always else kept)
    return out


@given(tables(), st.sampled_from([-2.0, 0.0, 0.3, 0.5, 3.0]), st.booleans())
def test_a_row_gets_its_best_labels_above_the_threshold(table: Any, threshold: float, always: bool) -> None:
    values, _, top, _ = table
    assert kernel._chosen(values, threshold, top, always) == chosen_one_by_one(values, threshold, top, always)


@given(tables(), st.booleans())
def test_no_threshold_has_a_better_f1(table: Any, always: bool) -> None:
    values, has, top, unlearned = table
    in_all = int(has.sum()) + unlearned

    def f1(threshold: float) -> float:
        said = chosen_one_by_one(values, threshold, top, always)
        hits = sum(has[k, label] for k, row in enumerate(said) for label in row)
        return 2 * hits / (sum(map(len, said)) + in_all) if said else 0.0

    found, threshold = kernel._best_threshold(values, has, in_all, top, always=always)
    if in_all:
        assert f1(threshold) == pytest.approx(found)
        # at least one label has to be given: none at all scores 0, and nothing is below that
        assert found == pytest.approx(max(f1(t) for t in [*np.unique(values), 1e9]))


def test_labels_that_vectors_tell_are_learned_and_rare_ones_are_not() -> None:
    vectors, of = grouped(300, 3)
    labels = [[f"label {k}", "even"] if k % 2 == 0 else [f"label {k}"] for k in of]
    labels[0], labels[1] = [*labels[0], "rare"], [*labels[1], "rare"]
    student = kernel.fit_labels(vectors, labels)
    assert student.targets == ("even", "label 0", "label 1", "label 2", "label 3")
    assert student.rule["always"] is True
    fresh, where = grouped(200, 30)
    said = kernel.labels_of_rows(student, column(fresh))
    meant = [[f"label {k}", "even"] if k % 2 == 0 else [f"label {k}"] for k in where]
    agreement = kernel.agreement_of_labels(said, meant)
    assert agreement.value > 0.95
    assert max(map(len, said)) <= 3
    # a row without a vector has no label, and says so
    assert kernel.labels_of_rows(student, column(fresh[:3], gone={1}))[1] == []
    assert kernel.flags_of(column(fresh[:3], gone={1})).to_pylist() == [[], ["no_vector"], []]


def test_where_the_teacher_gave_rows_no_label_the_student_may_too() -> None:
    vectors, of = grouped(300, 5)
    student = kernel.fit_labels(vectors, [["one"] if k == 1 else [] for k in of])
    assert student.rule["always"] is False
    fresh, where = grouped(200, 50)
    said = kernel.labels_of_rows(student, column(fresh))
    assert np.mean([bool(row) == (k == 1) for row, k in zip(said, where, strict=True)]) > 0.95


def test_labels_that_all_or_too_few_rows_have() -> None:
    vectors, _ = grouped(40, 7)
    everywhere = kernel.fit_labels(vectors, [["same"]] * 40)
    assert kernel.labels_of_rows(everywhere, column(unit(5, 9))) == [["same"]] * 5
    nothing = kernel.fit_labels(vectors, [[f"own {k}"] for k in range(40)])
    assert nothing.targets == ()
    assert kernel.labels_of_rows(nothing, column(unit(5, 9))) == [[]] * 5
    # its two labels are in no row that a third of the fits see: they are told that the label is nowhere
    sparse = kernel.fit_labels(vectors, [["seldom"] if k in (0, 3, 6) else ["often"] for k in range(40)])
    assert set(sparse.targets) == {"often", "seldom"}


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from("abcd"), max_size=4), st.lists(st.sampled_from("abcd"), max_size=4)),
        min_size=1, max_size=12,
    )
)  # fmt: skip
def test_f1_is_that_of_scikit_learn(rows: list[tuple[list[str], list[str]]]) -> None:
    said, meant = [row for row, _ in rows], [row for _, row in rows]
    found = kernel.agreement_of_labels(said, meant)
    names = sorted({label for pair in rows for row in pair for label in row})
    if not names:
        assert found.value is None
        return
    # with a single label scikit-learn would count its absence too
    binary, labels = MultiLabelBinarizer(classes=[*names, "none of them"]), list(range(len(names)))
    y, p = binary.fit_transform(meant), binary.fit_transform(said)
    assert found.value == pytest.approx(f1_score(y, p, labels=labels, average="micro", zero_division=0))
    assert found.more["macro_f1"] == pytest.approx(f1_score(y, p, labels=labels, average="macro", zero_division=0))
    each = f1_score(y, p, labels=labels, average=None, zero_division=0)
    assert [found.more["labels"][name]["f1"] for name in names] == pytest.approx(each.tolist(), abs=1e-4)


# scores


def planted(n: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    vectors = unit(n, seed)
    quality = 3 + 2 * vectors[:, 0] + 0.1 * np.random.default_rng(seed).normal(size=n)
    complexity = 2 + vectors[:, 1].astype(np.float64)
    return vectors, {"score": quality * complexity, "quality": quality, "complexity": complexity}


def test_scores_that_vectors_tell_are_learned_within_the_teachers_range() -> None:
    vectors, columns = planted(400, 1)
    student = kernel.fit_scores(vectors, columns)
    assert student.targets == ("score", "quality", "complexity")
    fresh, meant = planted(200, 2)
    said = kernel.scores_of_rows(student, column(fresh))
    agreement = kernel.agreement_of_scores(said, meant)
    assert agreement.value > 0.9
    assert agreement.more["rank_correlation_quality"] > 0.95
    assert np.abs(said["quality"] - meant["quality"]).mean() < 0.2
    far = kernel.scores_of_rows(student, column(50 * fresh))
    for name, values in far.items():
        assert (values.min(), values.max()) == (columns[name].min(), columns[name].max())
    # a row without a vector gets the teacher's mean
    unknown = kernel.scores_of_rows(student, column(fresh[:2], gone={0}))
    assert unknown["score"][0] == pytest.approx(columns["score"].mean())


def test_a_teacher_who_says_the_same_of_all_has_no_agreement() -> None:
    vectors = unit(100, 4)
    student = kernel.fit_scores(vectors, {"score": np.full(100, 5.0)})
    said = kernel.scores_of_rows(student, column(vectors))
    assert said["score"].tolist() == [5.0] * 100
    assert kernel.agreement_of_scores(said, {"score": np.full(100, 5.0)}).value is None


def test_a_row_gets_the_same_whatever_batch_it_is_in() -> None:
    vectors, of = grouped(3000, 11)
    labels = kernel.fit_labels(vectors[:300], [[f"label {k}"] for k in of[:300]])
    scores = kernel.fit_scores(vectors[:300], {"score": 3 + vectors[:300, 0].astype(np.float64)})
    whole = kernel.labels_of_rows(labels, column(vectors)), kernel.scores_of_rows(scores, column(vectors))["score"]
    for size in (1, 7, 1000):
        parts = [column(vectors[k : k + size]) for k in range(0, 3000, size)][:40]
        assert [row for part in parts for row in kernel.labels_of_rows(labels, part)] == whole[0][: 40 * size]
        some = np.concatenate([kernel.scores_of_rows(scores, part)["score"] for part in parts])
        assert (some == whole[1][: len(some)]).all()


# scikit-learn


def test_what_a_student_says_takes_no_scikit_learn() -> None:
    code = (
        "import sys, numpy as np, pyarrow as pa; sys.modules['sklearn'] = None\n"
        "from mig_spark.annotation.scorers.student import student_scores\n"
        "from mig_spark.annotation.taggers.student import student_labels\n"
        "from mig_spark.kernels.annotation.student import Student\n"
        "class Vectors:\n"
        "    def embed(self, messages): return pa.array([[1.0, 0.0], None], pa.list_(pa.float32()))\n"
        "batch = pa.RecordBatch.from_arrays([pa.array([1, 2])], ['messages'])\n"
        "w, b = np.ones((1, 2), np.float32), np.zeros(1, np.float32)\n"
        "labels = Student(('a',), w, b, {'threshold': 0.5, 'top': 1, 'always': False})\n"
        "rule = {'score': {'center': 2.0, 'scale': 1.0, 'low': 0.0, 'high': 9.0}}\n"
        "made = student_labels(batch, embedder=Vectors(), student=labels)\n"
        "assert made['labels'].to_pylist() == [['a'], []], made\n"
        "assert made['tag_flags'].to_pylist() == [[], ['no_vector']], made\n"
        "made = student_scores(batch, embedder=Vectors(), student=Student(('score',), w, b, rule))\n"
        "assert made['score'].to_pylist() == [3.0, 2.0], made\n"
        "for f in (student_labels, student_scores): f(batch, embedder=Vectors(), student=None)\n"
        "from mig_spark.errors import DependencyError\n"
        "from mig_spark.kernels.annotation import student\n"
        "try: student.fit_scores(np.ones((3, 2), np.float32), {'score': np.ones(3)})\n"
        "except DependencyError as e: assert 'mig-spark[student]' in str(e), e\n"
        "else: raise AssertionError('fitted without scikit-learn')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_scikit_learn_it_is_said_before_a_teacher_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DependencyError, match=r"mig-spark\[student\]"):
        kernel.check_fit_installed()


# the fit


def answers(lesson: Any, n: int, seed: int = 0) -> tuple[pa.Table, Drawn]:
    vectors, of = grouped(n, seed)
    table = {
        "id": [f"row {k}" for k in range(n)], "key": [f"key {k}" for k in range(n)], "vector": column(vectors),
        "labels": [[f"label {k}"] for k in of], "score": [float(k) for k in of], "quality": [float(k) for k in of],
        "complexity": [None if k == 0 else 1.0 for k in range(n)],
    }  # fmt: skip
    return pa.table(table), Drawn(tuple(table["id"]), tuple(table["key"]), 10 * n)


def test_agreement_is_measured_on_rows_that_the_fit_did_not_see() -> None:
    lesson = scorer(held_out=0.25).lesson
    table, drawn = answers(lesson, 200)
    made = fit(lesson, table, drawn, "run")
    assert (made.answered, made.agreement.rows, made.drawn, made.pool) == (200, 50, 200, 2000)
    # complexity is not there in every row, so it is not learned
    assert made.student.targets == ("score", "quality")
    # other answers for the rows held out change the agreement and the sample, and not the fit
    worse = table.to_pydict()
    worse["score"] = worse["score"][:150] + worse["score"][150:][::-1]
    changed = fit(lesson, pa.table(worse, schema=table.schema), drawn, "run")
    assert changed.student.digest() == made.student.digest()
    assert changed.agreement.value < made.agreement.value
    assert changed.sample != made.sample
    # the same again is the same student
    assert fit(lesson, table, drawn, "later").sample == made.sample


def test_labels_on_rows_held_out_that_were_never_seen_count_as_missed() -> None:
    lesson = tagger(held_out=0.2).lesson
    table, drawn = answers(lesson, 100)
    plain = table.to_pydict()
    plain["labels"] = plain["labels"][:80] + [["new"]] * 20
    made = fit(lesson, pa.table(plain, schema=table.schema), drawn, "run")
    assert made.agreement.value == 0.0
    assert made.agreement.more["labels"]["new"] == {"f1": 0.0, "teacher": 20, "student": 0}
    counts = Counter({name: one["student"] for name, one in made.agreement.more["labels"].items()})
    assert counts.total() == 20


def test_too_few_answers_teach_nothing() -> None:
    lesson = scorer().lesson
    table, drawn = answers(lesson, LEAST_ROWS - 1)
    with pytest.raises(AnnotationError, match=r"cannot learn from 49 rows: 50 have to be drawn.*annotate.scorer.rows"):
        fit(lesson, table, drawn, "run")
    table, drawn = answers(lesson, LEAST_ROWS)
    blind = table.set_column(table.schema.get_field_index("vector"), "vector", column(unit(50, 0), set(range(45))))
    with pytest.raises(AnnotationError, match="have a text that the embedding knows"):
        fit(lesson, blind, drawn, "run")


def test_scores_that_are_no_numbers_teach_nothing() -> None:
    lesson = scorer().lesson
    table, drawn = answers(lesson, 100)
    plain = table.to_pydict()
    plain["score"][3] = float("inf")
    with pytest.raises(AnnotationError, match="no finite numbers"):
        fit(lesson, pa.table(plain, schema=table.schema), drawn, "run")


@pytest.mark.parametrize(("make", "name"), [(tagger, "tagger"), (scorer, "scorer")])
def test_a_student_that_agrees_too_little_stops_the_run_unless_that_is_allowed(make: Any, name: str) -> None:
    lesson = make().lesson
    table, drawn = answers(lesson, 100)
    made = fit(lesson, table, drawn, "run 7")
    see_that_it_agrees(lesson, made)
    bad = replace(made, agreement=replace(made.agreement, value=0.123))
    with pytest.raises(AnnotationError) as e:
        see_that_it_agrees(lesson, bad)
    said = str(e.value)
    assert e.value.exit_code == 2
    asked = "0.4" if name == "tagger" else "0.5"
    for words in ("0.12", f"annotate.{name}.least_agreement asks for {asked}", "on 20 rows", "fit of 80",
                  f"annotate.{name}.allow_disagreement: true", "What the teacher has said is kept"):  # fmt: skip
        assert words in said, said
    see_that_it_agrees(make(allow_disagreement=True).lesson, bad)
    see_that_it_agrees(make(least_agreement=0.1).lesson, bad)
    unknown = replace(made, agreement=replace(made.agreement, value=None))
    with pytest.raises(AnnotationError, match="says the same of all 20 rows"):
        see_that_it_agrees(make(least_agreement=0.0).lesson, unknown)
    plain = told(lesson, made)
    assert (plain["fitted_on"], plain["held_out"], plain["unanswered"], plain["fitted_by"]) == (80, 20, 0, "run 7")
    assert plain["agreement"] == made.agreement.value


def test_a_pool_that_has_grown_far_beyond_the_sample_is_told(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_growth({"tagger": {"pool": 100}}, 200)
    assert not caplog.messages
    warn_of_growth({"tagger": {"pool": 100}}, 201)
    assert "another annotate.tagger.seed draws a new one" in caplog.text


def test_the_summary_says_how_far_a_student_agrees_and_what_its_teacher_was_asked() -> None:
    lesson = scorer().lesson
    table, drawn = answers(lesson, 100)
    made = fit(lesson, table, drawn, "run 7")
    one = {**told(lesson, made), "asked": 100, "requests": 130}
    health = {"score": {"median": 1.0, "p01": 0.0, "p99": 2.0}, "flags": {}, "labels_a_row": 1.0, "labels_outside": 0,
              "without_labels": 0}  # fmt: skip
    shown = dict(_annotation({"health": health, "students": {"scorer": one}}))
    assert shown["  student"] == (
        f"scorer, of heuristic: rank correlation of the score {made.agreement.value:.2f} on 20 rows held out, "
        "fitted on 80 (100 rows asked in this run, 130 requests)"
    )
    later = dict(_annotation({"health": health, "students": {"scorer": {**one, "asked": 0, "requests": 0}}}))
    assert later["  student"].endswith("(fitted by run run 7)")


def test_another_teacher_makes_the_annotated_pool_stale() -> None:
    def of(teacher: dict[str, Any]) -> dict[str, str]:
        section = {"kind": "student", "teacher": teacher}
        plain = {"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": {"scorer": section}}
        return made_with(build_config(plain))

    judge = {"kind": "endpoint", "base_url": "http://a/v1", "model": "judge"}
    one, other, faster = of(judge), of({**judge, "model": "other"}), of({**judge, "concurrency": 3})
    differ = {name for name, value in one.items() if other[name] != value}
    assert differ == {"annotate.scorer", "annotate.scorer.teacher.model"}
    # how fast a teacher works is no reason
    assert {name for name, value in one.items() if faster[name] != value} == {"annotate.scorer"}
    assert not any(
        "teacher" in name for name in made_with(build_config({"pool": {"path": "p"}, "output": {"path": "o"}}))
    )


def test_a_student_is_plain_values() -> None:
    import pickle

    student = Student(("a",), np.ones((1, D), np.float32), np.zeros(1, np.float32), {"threshold": 0.0, "top": 1})
    assert pickle.loads(pickle.dumps(student)).digest() == student.digest()
