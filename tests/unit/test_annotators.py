from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest

from mig_spark.annotation.annotators import make_scorer, make_tagger
from mig_spark.annotation.label_lists import read_label_list
from mig_spark.annotation.scorers.column import ColumnScorer
from mig_spark.annotation.scorers.heuristic import HeuristicScorer, heuristic_scores
from mig_spark.annotation.taggers.column import ColumnTagger, valid_labels
from mig_spark.annotation.taggers.embedding import EmbeddingTagger
from mig_spark.errors import AnnotationError, DependencyError, InputError
from mig_spark.kernels.annotation import heuristics
from mig_spark.kernels.annotation.annotators import (
    ARROW_TYPES,
    ERRORS,
    OUTSIDE,
    SCORES,
    TAGS,
    CostKind,
    Step,
    annotate_batch,
)
from mig_spark.plugins import SCORERS, TAGGERS, Registry

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
GIVEN = pa.struct([("labels", pa.list_(pa.string())), ("score", pa.float64())])


HEURISTIC = Step(heuristic_scores, SCORES)


def listed(*labels: str) -> Step:
    return Step(valid_labels, TAGS, {"valid": labels})


class Conf:
    """Only what `make_tagger` asks a session for."""

    class conf:  # noqa: N801
        @staticmethod
        def get(key: str, default: str) -> str:
            return {"spark.task.cpus": "3"}.get(key, default)


def batch(rows: list[dict[str, object]]) -> pa.RecordBatch:
    schema = pa.schema([("messages", MESSAGES), ("given", GIVEN), *ARROW_TYPES.items()])
    return pa.RecordBatch.from_pylist(rows, schema=schema)


def talk(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "How does bread rise?"}, {"role": "assistant", "content": answer}]


def test_rows_with_a_score_keep_it_and_the_others_are_scored_in_place() -> None:
    known = {"quality": 2.0, "complexity": 3.0, "score": 6.0, "score_flags": ["refusal"]}
    rows = [
        {"messages": talk("Yeast makes gas.")},
        {"messages": talk("x"), **known},
        {"messages": talk("Because of yeast.")},
    ]
    made, cost = annotate_batch(batch(rows), [HEURISTIC])
    fresh = [heuristics.score_messages(talk(answer)) for answer in ("Yeast makes gas.", "Because of yeast.")]
    assert made["quality"].to_pylist() == [fresh[0][0], 2.0, fresh[1][0]]
    assert made["score"].to_pylist() == [fresh[0][0] * fresh[0][1], 6.0, fresh[1][0] * fresh[1][1]]
    assert made["score_flags"].to_pylist() == [fresh[0][2], ["refusal"], fresh[1][2]]
    assert (cost.rows, cost.model_loads) == (2, 0)


def test_nothing_to_do_costs_nothing() -> None:
    known = {"quality": 2.0, "complexity": 3.0, "score": 6.0, "score_flags": []}
    made, cost = annotate_batch(batch([known, known]), [HEURISTIC])
    assert made["score"].to_pylist() == [6.0, 6.0]
    assert cost.rows == 0
    empty, _ = annotate_batch(batch([]), [HEURISTIC, listed("a")])
    assert {name: len(column) for name, column in empty.items()} == dict.fromkeys((*SCORES, *TAGS, *ERRORS), 0)


def test_labels_outside_the_list_are_left_out_and_flagged() -> None:
    rows = [{"given": {"labels": labels}} for labels in (["b", "a", "b"], ["z"], [], ["a", "z", "y"])]
    made, _ = annotate_batch(batch(rows).slice(1), [listed("a", "b")])
    assert made["labels"].to_pylist() == [[], [], ["a"]]
    assert made["tag_flags"].to_pylist() == [[OUTSIDE], [], [OUTSIDE]]
    made, _ = annotate_batch(batch(rows), [listed("a", "b")])
    assert made["labels"].to_pylist()[0] == ["b", "a"]


def test_a_version_changes_with_what_can_change_the_answer(tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps(["a", "b"]))
    two.write_text(json.dumps(["a", "c"]))

    def version(**options: object) -> str:
        return make_tagger(EmbeddingTagger(**{"vocabulary": str(one), "hubs": 0, **options}), Conf()).version

    assert version() == version(batch_tokens=64)
    versions = [version(), version(vocabulary=str(two)), version(top=3), version(floor=0.5), version(margin=0.5),
                version(max_tokens=64), version(vocabulary="builtin")]  # fmt: skip
    assert len(set(versions)) == len(versions)
    listed = [make_tagger(ColumnTagger(valid_labels=str(p)), Conf()).version for p in (one, two)]
    assert len({*listed, make_tagger(ColumnTagger(), Conf()).version}) == 3


def test_the_heuristic_version_follows_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    before = make_scorer(HeuristicScorer()).version
    monkeypatch.setattr(heuristics, "VERSION", heuristics.VERSION + 1)
    assert make_scorer(HeuristicScorer()).version != before


def test_the_model_files_are_part_of_the_version(tmp_path: Path) -> None:
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    versions = []
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        versions.append(make_tagger(EmbeddingTagger(model=str(weights.parent)), Conf()).version)
    assert versions[0] == versions[2] != versions[1]


def test_who_reads_what() -> None:
    assert make_tagger(ColumnTagger(), Conf()).reads_given
    assert make_scorer(ColumnScorer()).reads_given
    assert not make_scorer(HeuristicScorer()).reads_given
    tagger = make_tagger(EmbeddingTagger(), Conf())
    assert not tagger.reads_given
    assert tagger.step is not None
    assert tagger.step.parameters["threads"] == 3


def test_a_model_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(DependencyError, match="/no/such/model"):
        make_tagger(EmbeddingTagger(model="/no/such/model"), Conf())


@pytest.mark.parametrize("content", ["{}", "[]", '["a", 1]', '["a", ""]', "nonsense", '"a"'])
def test_a_list_of_labels_has_to_be_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"labels\.json"):
        read_label_list(str(path))


def test_a_missing_list_of_labels_is_named() -> None:
    with pytest.raises(InputError, match=r"/nowhere/labels\.json"):
        read_label_list("/nowhere/labels.json")


def only_labels(batch: pa.RecordBatch, *, values: list[object]) -> dict[str, pa.Array]:
    return {"labels": pa.array(values)}


def test_a_kernel_may_leave_out_what_it_has_nothing_to_say_of() -> None:
    rows = batch([{"messages": talk("x")}, {"messages": talk("y")}])
    made, _ = annotate_batch(rows, [Step(only_labels, TAGS, {"values": [["a"], []]})])
    assert made["labels"].to_pylist() == [["a"], []]
    assert made["tag_flags"].to_pylist() == [[], []]
    assert made["tag_error"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("makes", "values", "words"),
    [
        (TAGS, [["a"]], r"test_annotators\.only_labels returned 1 values of 'labels' for 2 rows"),
        (TAGS, [1, 2], r"returned 'labels' as int64, not as list<item: string>"),
        (SCORES, [["a"], []], r"returned no column 'score', but \['labels'\]"),
    ],
)
def test_what_a_kernel_must_not_return_is_told(makes: tuple[str, ...], values: list[object], words: str) -> None:
    rows = batch([{"messages": talk("x")}, {"messages": talk("y")}])
    with pytest.raises(AnnotationError, match=words):
        annotate_batch(rows, [Step(only_labels, makes, {"values": values})])


@pytest.mark.parametrize("family", [TAGGERS, SCORERS], ids=lambda f: f.role)
def test_every_kind_is_a_module_of_its_own_under_its_name(family: Registry) -> None:
    for kind, model in family.all().items():
        assert model.model_fields["kind"].default == kind
        assert model.__module__ == f"mig_spark.annotation.{family.role}s.{kind}"
        assert model.cost in get_args(CostKind)
