"""Config to annotator for the kinds that run models: what is refused, and versions that follow what can change."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from mig_spark.annotation.annotators import make_scorer, make_tagger
from mig_spark.config import Config, build_config
from mig_spark.errors import ConfigError, DependencyError
from mig_spark.kernels.annotation import heuristics, instag, lm_scores
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, TRUNCATED, annotate_batch


class Conf:
    """Only what `make_tagger` asks a session for."""

    class conf:  # noqa: N801
        @staticmethod
        def get(key: str, default: str) -> str:
            return {"spark.task.cpus": "3"}.get(key, default)


def config(**annotate: object) -> Config:
    return build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": annotate})


def tagger_version(**tagger: object) -> str:
    return make_tagger(config(tagger=tagger).annotate.tagger, Conf()).version


def scorer_version(**scorer: object) -> str:
    return make_scorer(config(scorer=scorer).annotate.scorer, Conf()).version


def model_folder(path: Path, content: bytes) -> str:
    path.mkdir()
    (path / "model.safetensors").write_bytes(content)
    return str(path)


def test_a_tagger_version_follows_what_can_change_its_tags(tmp_path: Path) -> None:
    one, two = model_folder(tmp_path / "m", b"1"), model_folder(tmp_path / "n", b"2")
    base = {"kind": "instag", "model": one}
    same = {"batch_tokens": 5, "device": "cpu"}
    assert tagger_version(**base) == tagger_version(**base, **same)
    other = [
        {"model": two},
        {"prompt": "Tags of {text}"},
        {"max_tokens": 99},
        {"max_new_tokens": 9},
        {"dtype": "float16"},
    ]
    versions = [tagger_version(**base), *(tagger_version(**{**base, **change}) for change in other)]
    assert len(set(versions)) == len(versions)
    base = {"kind": "distilled", "hubs": 0}
    assert tagger_version(**base) == tagger_version(**base, cache_dir="/elsewhere")
    sample = tmp_path / "rows.jsonl"
    sample.write_text('{"instruction": "ask", "output": "answer"}')
    other = [{"top": 3}, {"floor": 0.3}, {"margin": 0.2}, {"max_tokens": 99}, {"model": one}, {"sample": str(sample)}]
    versions = [tagger_version(**base), *(tagger_version(**{**base, **change}) for change in other)]
    assert len({*versions, tagger_version(kind="embedding")}) == len(versions) + 1


def test_a_scorer_version_follows_what_can_change_its_scores(tmp_path: Path) -> None:
    one, two = model_folder(tmp_path / "m", b"1"), model_folder(tmp_path / "n", b"2")
    deita = {"kind": "deita", "quality_model": one, "complexity_model": two}
    parts = {"quality": {"kind": "reward", "model": one}, "complexity": {"kind": "ifd", "model": two}}
    kinds = [
        deita,
        {**deita, "quality_model": two, "complexity_model": one},
        {**deita, "aggregate": "sum"},
        {**deita, "chat": False},
        {**deita, "quality_prompt": "{instruction}{response}"},
        {**deita, "complexity_prompt": "{instruction}"},
        {**deita, "max_tokens": 99},
        {"kind": "ifd", "model": one},
        {"kind": "ifd", "model": two},
        {"kind": "ifd", "model": one, "chat": False},
        {"kind": "reward", "model": one},
        {"kind": "reward", "model": one, "label": 1},
        {"kind": "reward", "model": one, "activation": "none"},
        {"kind": "combine", **parts},
        {"kind": "combine", "quality": parts["complexity"], "complexity": parts["quality"]},
        {"kind": "combine", **parts, "complexity": {"kind": "heuristic"}},
        {"kind": "heuristic"},
    ]
    versions = [scorer_version(**kind) for kind in kinds]
    assert len(set(versions)) == len(versions)
    assert scorer_version(**deita) == scorer_version(**deita, batch_tokens=7)


def test_parameters_are_those_that_the_kernels_take(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", b"1")
    deita = {"kind": "deita", "quality_model": folder, "complexity_model": folder}
    kinds = [deita, {"kind": "ifd", "model": folder}, {"kind": "reward", "model": folder}]
    kinds.append({"kind": "combine", "quality": deita, "complexity": kinds[1]})
    annotators = [make_scorer(config(scorer=kind).annotate.scorer, Conf()) for kind in kinds]
    taggers = [{"kind": "instag", "model": folder}, {"kind": "distilled"}]
    annotators += [make_tagger(config(tagger=kind).annotate.tagger, Conf()) for kind in taggers]
    for annotator in annotators:
        assert annotator.step is not None
        code = annotator.step.kernel.__code__
        given = {*annotator.step.parameters, *annotator.step.parts}
        assert given == set(code.co_varnames[1 : 1 + code.co_kwonlyargcount])
        assert annotator.step.makes == annotator.makes
    assert annotators[0].step.parameters["quality"]["threads"] == 3
    assert {a.may_fail for a in annotators[:5]} == {True}
    assert annotators[3].flags == (lm_scores.TRUNCATED, lm_scores.IFD_GE_1)
    assert annotators[4].flags == (TRUNCATED, instag.UNPARSABLE)


@pytest.mark.parametrize(
    ("annotate", "words"),
    [
        ({"tagger": {"kind": "instag"}}, "'annotate.tagger.model' is missing"),
        ({"tagger": {"kind": "instag", "model": "m", "prompt": "tags?"}}, "prompt must have {text}"),
        ({"tagger": {"kind": "instag", "model": "m", "prompt": "{text} as {json}"}}, "prompt must have {text}"),
        ({"tagger": {"kind": "instag", "model": "m", "prompt": "{text} as {"}}, "a brace that stands alone"),
        ({"tagger": {"kind": "distilled", "flor": 1}}, "unknown key 'annotate.tagger.flor', did you mean 'floor'?"),
        ({"scorer": {"kind": "deita", "quality_model": "m"}}, "'annotate.scorer.complexity_model' is missing"),
        ({"scorer": {"kind": "ifd", "model": "m", "dtype": "int8"}}, "annotate.scorer.dtype = 'int8'"),
        ({"scorer": {"kind": "combine", "quality": {"kind": "column"}}}, "annotate.scorer.quality"),
        ({"score": {"combine": "mean"}}, "annotate.score.combine = 'mean'"),
        ({"score": {"columns": ["quality", "quality"]}}, "columns name one twice"),
        ({"score": {"columns": []}}, "annotate.score.columns"),
        ({"score": {"columns": ["reward"]}}, "annotate.score.columns"),
        ({"score": {"weights": {"score": 2}}}, "weights have no effect on a product"),
        ({"score": {"combine": "sum", "weights": {"quality": 2}}}, "weights for quality, which is not among columns"),
        ({"score": {"combine": "sum", "weights": {"score": -1}}}, "weights must be numbers from 0 on"),
        ({"score": {"per_source": True}}, "per_source has no effect"),
        ({"score": {"control": "answers"}}, "annotate.score.control"),
        ({"score": {"control": ["length", "length"]}}, "control names one twice"),
        ({"score": {"control": "tokens"}, "tokenizer": None}, "name a tokenizer"),
        ({"score": {"control": "length", "spread": 1.0}}, "annotate.score.spread"),
        ({"score": {"reliability": 0}}, "annotate.score.reliability = 0"),
        ({"score": {"reliability": 1.2}}, "annotate.score.reliability = 1.2"),
        ({"score": {"shrink_to": "pool"}}, "shrink_to has no effect without reliability"),
        ({"score": {"reliability": 0.5, "control": "length"}}, "reliability and control cannot go together"),
    ],
)
def test_what_cannot_be_is_refused_when_the_config_is_built(annotate: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**annotate)
    assert words in str(caught.value)


def test_a_model_folder_that_is_not_there_is_named_before_anything_runs() -> None:
    with pytest.raises(DependencyError, match="/no/such/model"):
        make_scorer(config(scorer={"kind": "ifd", "model": "/no/such/model"}).annotate.scorer, Conf())


def test_two_scorers_make_one_score() -> None:
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    talk = [{"role": "user", "content": "How does bread rise?"}, {"role": "assistant", "content": "I cannot help."}]
    batch = pa.RecordBatch.from_pylist(
        [{"messages": talk}], schema=pa.schema([("messages", messages), *ARROW_TYPES.items()])
    )
    part = {"kind": "heuristic"}
    both = make_scorer(config(scorer={"kind": "combine", "quality": part, "complexity": part}).annotate.scorer, Conf())
    made, _ = annotate_batch(batch, [both.step])
    quality, complexity, flags = heuristics.score_messages(talk)
    assert made["quality"].to_pylist() == [quality]
    assert made["complexity"].to_pylist() == [complexity]
    assert made["score"].to_pylist() == [quality * complexity]
    assert made["score_flags"].to_pylist() == [flags]
    assert made["score_error"].to_pylist() == [None]
