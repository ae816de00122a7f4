"""Names and versions of taggers and scorers are keys of the cache of paid answers: they change only on purpose.

A version that changes here makes every user annotate again. Where that is meant (another prompt, another rule), raise
the VERSION beside what changed and write down the new value here and in CHANGELOG.md.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mig_spark.annotation.annotator import Annotator
from mig_spark.annotation.annotators import any_runs_model, make_scorer, make_tagger
from mig_spark.config import build_config


class Conf:
    """Only what `make_tagger` asks a session for."""

    class conf:  # noqa: N801
        @staticmethod
        def get(key: str, default: str) -> str:
            return default


JUDGE = {"kind": "endpoint", "base_url": "http://h/v1", "model": "judge"}
LM = {"model": "{folder}"}
#: the zero-shot taggers as they were before labels were chosen by the pool; for `distilled` with its own limits
BEFORE = {"text": "row", "hubs": 0, "top": 6, "floor": 0.2, "margin": 0.1}
DEITA = {"kind": "deita", "quality_model": "{folder}", "complexity_model": "some/hub-name", "revision": "v2"}

TAGGERS = [
    ({"kind": "column"}, "column", "f2754d7dd46e9f18", "", "reads given"),
    ({"kind": "column", "valid_labels": "{labels}"}, "column", "f3948563284c51ea", "label_outside", "reads given"),
    (
        {"kind": "embedding", "vocabulary": "{labels}", **LM, **BEFORE, "floor": 0.22, "margin": 0.12},
        "embedding m@621dc4ed35802c25",
        "0062fc4afa711756",
        "truncated",
        "slow",
    ),
    (
        {"kind": "embedding", **BEFORE, "top": 3, "floor": 0.5, "margin": 0.2, "max_tokens": 64, **LM},
        "embedding m@621dc4ed35802c25",
        "49caf27aba8953b7",
        "truncated",
        "slow",
    ),
    (
        {"kind": "embedding", **BEFORE, "top": 3, "floor": 0.5, "margin": 0.2, "dtype": "bfloat16", **LM},
        "embedding m@621dc4ed35802c25 in bfloat16",
        "de12cdf205321ce4",
        "truncated",
        "slow",
    ),
    (
        {"kind": "distilled", "vocabulary": "{labels}", **LM, **BEFORE},
        "distilled m@621dc4ed35802c25",
        "f51f9ba23bd9c41a",
        "truncated",
        "",
    ),
    (
        {"kind": "distilled", "sample": "{rows}", **LM, **BEFORE, "top": 2},
        "distilled m@621dc4ed35802c25",
        "b32076fbb236d0de",
        "truncated",
        "",
    ),
    (
        {"kind": "distilled", "vocabulary": "{labels}", **LM, **BEFORE, "floor": 0},
        "distilled m@621dc4ed35802c25",
        "d2c961077df1964e",
        "truncated",
        "",
    ),
    (
        {"kind": "instag", **LM},
        "instag m@621dc4ed35802c25",
        "3d4820703b9fa73c",
        "truncated,unparsable",
        "may fail, slow",
    ),
    (
        {"kind": "instag", "model": "some/hub-name", "revision": "v1", "prompt": "Tags of {text}", "dtype": "float16"},
        "instag some/hub-name@v1",
        "aabf84534f6f21bb",
        "truncated,unparsable",
        "may fail, slow",
    ),
    ({**JUDGE}, "endpoint judge", "f2be61a5333bef98", "truncated", "may fail, paid, slow"),
    (
        {**JUDGE, "vocabulary": "{labels}", "top": 4, "body": {"seed": 1}},
        "endpoint judge",
        "4d89a83b15732cd4",
        "truncated,label_outside",
        "may fail, paid, slow",
    ),
    (
        {**JUDGE, "vocabulary": "{unlike}"},
        "endpoint judge",
        "7d4ba7dca76b6cc9",
        "truncated,label_outside",
        "may fail, paid, slow",
    ),
    (
        {**JUDGE, "language": None, "max_chars": 500},
        "endpoint judge",
        "f06f9e8ea8f2b9ed",
        "truncated",
        "may fail, paid, slow",
    ),
]
SCORERS = [
    ({"kind": "column"}, "column", "90287b086663df29", "", "reads given"),
    ({"kind": "heuristic"}, "heuristic", "b859cc16699312a7", "no_answer,refusal,repetitive,cut_off,echo,garbled", ""),
    ({**JUDGE}, "endpoint judge", "5dae9fa75a939202", "truncated", "may fail, paid, slow"),
    ({**DEITA}, "deita m@621dc4ed35802c25 some/hub-name@v2", "3bf21dadc64b5235", "score_truncated", "may fail, slow"),
    (
        {**DEITA, "aggregate": "sum", "chat": False, "quality_prompt": "{instruction} {response}"},
        "deita m@621dc4ed35802c25 some/hub-name@v2",
        "811c433ffc6e6942",
        "score_truncated",
        "may fail, slow",
    ),
    ({"kind": "ifd", **LM}, "ifd m@621dc4ed35802c25", "c7c057e0ef58a555", "score_truncated,ifd_ge_1", "may fail, slow"),
    (
        {"kind": "ifd", "chat": False, "max_tokens": 99, **LM},
        "ifd m@621dc4ed35802c25",
        "bbe04280cb505e19",
        "score_truncated,ifd_ge_1",
        "may fail, slow",
    ),
    ({"kind": "reward", **LM}, "reward m@621dc4ed35802c25", "b1bcdd738c7257f5", "score_truncated", "may fail, slow"),
    (
        {"kind": "reward", "label": 1, "activation": "none", "dtype": "bfloat16", **LM},
        "reward m@621dc4ed35802c25",
        "1f130934b3521b70",
        "score_truncated",
        "may fail, slow",
    ),
    (
        {"kind": "combine", "quality": JUDGE, "complexity": {"kind": "ifd", **LM}},
        "combine quality: endpoint judge, complexity: ifd m@621dc4ed35802c25",
        "4abd1171fa50f2a5",
        "truncated,score_truncated,ifd_ge_1",
        "may fail, paid, slow",
    ),
    (
        {"kind": "combine", "quality": {"kind": "heuristic"}, "complexity": {"kind": "reward", **LM}},
        "combine quality: heuristic, complexity: reward m@621dc4ed35802c25",
        "cf5478d1bc8837f7",
        "no_answer,refusal,repetitive,cut_off,echo,garbled,score_truncated",
        "may fail, slow",
    ),
]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    folder, labels, rows = tmp_path / "m", tmp_path / "labels.json", tmp_path / "rows.jsonl"
    unlike = tmp_path / "unlike.json"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    labels.write_text(json.dumps(["a", "b"]))
    unlike.write_text(json.dumps(["go", "Go"]))
    rows.write_text('{"instruction": "ask", "output": "answer"}')
    return {"{folder}": str(folder), "{labels}": str(labels), "{rows}": str(rows), "{unlike}": str(unlike)}


def filled(section: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    return {
        key: filled(value, places) if isinstance(value, dict) else places.get(value, value)
        if isinstance(value, str) else value
        for key, value in section.items()
    }  # fmt: skip


def facts(annotator: Annotator) -> str:
    said = {"reads given": annotator.reads_given, "may fail": annotator.may_fail, "paid": annotator.paid}
    return ", ".join(name for name, holds in {**said, "slow": annotator.slow}.items() if holds)


@pytest.mark.parametrize(
    ("role", "section", "name", "version", "flags", "told"),
    [*(("tagger", *case) for case in TAGGERS), *(("scorer", *case) for case in SCORERS)],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
def test_the_key_of_cached_answers_stays(
    role: str, section: dict[str, Any], name: str, version: str, flags: str, told: str, places: dict[str, str]
) -> None:
    plain = {"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": {role: filled(section, places)}}
    config = getattr(build_config(plain).annotate, role)
    annotator = (make_tagger if role == "tagger" else make_scorer)(config, Conf())
    assert (annotator.name, annotator.version) == (name, version)
    assert ",".join(annotator.flags) == flags
    assert facts(annotator) == told
    assert annotator.max_tasks == (16 if annotator.paid else None)


@pytest.mark.parametrize(
    ("annotate", "runs"),
    [
        ({}, True),
        ({"tagger": {"kind": "distilled"}}, False),
        ({"tagger": {"kind": "column"}, "scorer": {"kind": "column"}}, False),
        ({"tagger": JUDGE, "scorer": JUDGE}, False),
        ({"tagger": {"kind": "column"}, "scorer": {"kind": "ifd", "model": "gpt2"}}, True),
        (
            {
                "tagger": {"kind": "column"},
                "scorer": {
                    "kind": "combine", "quality": {"kind": "heuristic"},
                    "complexity": {"kind": "ifd", "model": "gpt2"},
                },
            },
            True,
        ),
        ({"tagger": {"kind": "student", "teacher": JUDGE}}, False),
        ({"tagger": {"kind": "student", "teacher": JUDGE, "embedding": "model"}}, True),
        ({"tagger": {"kind": "student", "teacher": {"kind": "embedding"}}}, True),
    ],
)  # fmt: skip
def test_which_run_a_model_that_workers_import_for(annotate: dict[str, Any], runs: bool) -> None:
    named = build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": annotate}).annotate
    assert any_runs_model([make_tagger(named.tagger, Conf()), make_scorer(named.scorer, Conf())]) is runs


CONFIGS = [
    ({}, "e5671e48e05ef092"),
    ({"tagger": {"kind": "column"}, "scorer": {"kind": "column"}}, "2c659312652f378b"),
    (
        {"tagger": JUDGE, "scorer": {"kind": "combine", "quality": JUDGE, "complexity": {"kind": "heuristic"}}},
        "fee63938cc00b42e",
    ),
]


@pytest.mark.parametrize(("annotate", "digest"), CONFIGS)
def test_what_a_config_says_of_annotation_stays(annotate: dict[str, Any], digest: str) -> None:
    """Keys and defaults: the hash that finished stages are found by follows from them."""
    config = build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": annotate})
    said = json.dumps(config.to_dict()["annotate"], sort_keys=True)
    assert hashlib.sha256(said.encode()).hexdigest()[:16] == digest
