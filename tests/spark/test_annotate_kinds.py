"""Every tagger and scorer kind through the whole stage: tries, rejects, health. Real model code on tiny models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from tiny_models import save_causal, save_embedder, save_reward

from mig_spark.annotation.annotate import annotate_pool
from mig_spark.annotation.preflight import preview_annotation
from mig_spark.config import Config, build_config
from mig_spark.contracts import ANNOTATED, POOL, REJECTED
from mig_spark.errors import AnnotationError
from mig_spark.kernels.annotation.endpoint import UNPARSABLE
from mig_spark.kernels.annotation.lm_scores import NO_PAIR
from mig_spark.lakehouse.tables import Store

from oracles.endpoint_server import Say, Server, completion, endpoint

pytestmark = pytest.mark.long

LABELS = ["yeast dough", "sorts numbers", "emperor"]
ROWS = 24
#: has no answer, so no model can score it
LONELY = 7


def question(row: int) -> str:
    subject = ("How does bread rise? Yeast", "sorts a list of numbers", "Who was emperor after Augustus?")[row % 3]
    return f"{subject} question {row}" + (" Tiberius was. gas" * 60 if row == 5 else "")


def reply(text: str, before: int, body: dict[str, Any]) -> Say:
    row = int(text.split("question ")[1].split()[0])
    if "quality" in body["messages"][0]["content"]:
        return completion({"quality": 1 + row % 5, "complexity": 1 + row % 3})
    return completion("bread, I think" if row == 3 else {"labels": ["Emperor", "nonsense"] if row == 4 else LABELS[:2]})


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with endpoint(reply) as running:
        yield running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    (folder / "embedder").mkdir()
    (folder / "labels.json").write_text(json.dumps(LABELS))
    return {
        "embedder": save_embedder(folder / "embedder"),
        "causal": save_causal(folder / "causal", template=True),
        "reward": save_reward(folder / "reward"),
        "labels": str(folder / "labels.json"),
        "cache": str(folder / "cache"),
    }


def tagger_of(kind: str, models: dict[str, str], server: Server) -> dict[str, Any]:
    near = {"model": models["embedder"], "vocabulary": models["labels"], "floor": -1.0, "margin": 2.0, "top": 2,
            "max_tokens": 64, "text": "row"}  # fmt: skip
    return {
        "column": {"valid_labels": models["labels"]},
        "embedding": near,
        "distilled": {**near, "cache_dir": models["cache"]},
        "instag": {"model": models["causal"], "max_new_tokens": 4, "max_tokens": 200, "device": "cpu"},
        "endpoint": {"base_url": server.url, "model": "m", "vocabulary": models["labels"], "max_chars": 600},
    }[kind] | {"kind": kind}


def scorer_of(kind: str, models: dict[str, str], server: Server) -> dict[str, Any]:
    how = {"device": "cpu", "max_tokens": 200}
    judge = {"kind": "endpoint", "base_url": server.url, "model": "m"}
    return {
        "column": {},
        "heuristic": {},
        "deita": {**how, "quality_model": models["causal"], "complexity_model": models["causal"]},
        "ifd": {**how, "model": models["causal"]},
        "reward": {**how, "model": models["reward"]},
        "endpoint": judge,
        "combine": {"quality": judge, "complexity": {**how, "kind": "ifd", "model": models["causal"]}},
    }[kind] | {"kind": kind}


def make_config(path: Path, tagger: dict[str, Any], scorer: dict[str, Any], **annotate: Any) -> Config:
    plain = {"tagger": tagger, "scorer": scorer, "allow_degenerate": True, "max_attempts": 2, **annotate}
    sections = {"pool": {"path": "p"}, "screen": {"copies": "keep"}, "output": {"path": str(path / "out")}}
    return build_config({**sections, "annotate": plain})


@pytest.fixture(scope="module")
def store(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One pool and one cache for all: a version keeps the kinds apart."""
    path = tmp_path_factory.mktemp("kinds")
    config = make_config(path, {"kind": "column"}, {"kind": "column"})
    store = Store(spark, config.output)
    rows = []
    for k in range(ROWS):
        talk = [("user", question(k)), *([] if k == LONELY else [("assistant", f"Yeast makes gas in {k} ways.")])]
        given = ([LABELS[k % 3], "outside"] if k % 2 else [LABELS[k % 3]], None, None, 1.0 + k, None)
        rows.append((f"row-{k}", f"hash-{k}", talk, "here", "messages", given, "{}"))
    store.write(POOL, spark.createDataFrame([(*r, r[1], "sft") for r in rows], POOL.ddl()))
    return store


def with_output(config: Config, store: Store) -> Config:
    return config.model_copy(update={"output": store.output})


def run(store: Store, tmp_path: Path, tagger: dict[str, Any], scorer: dict[str, Any], number: int) -> dict[str, Any]:
    config = with_output(make_config(tmp_path, tagger, scorer), store)
    return annotate_pool(store, config, f"run-{tagger['kind']}-{scorer['kind']}-{number}")


@pytest.mark.parametrize(
    ("tagger", "scorer", "lost", "why"),
    [
        ("column", "column", [], ""),
        ("embedding", "reward", [LONELY], f"score: {NO_PAIR}"),
        ("distilled", "ifd", [LONELY], f"score: {NO_PAIR}"),
        ("endpoint", "endpoint", [3], f"labels: {UNPARSABLE}'bread, I think'"),
        ("distilled", "deita", [LONELY], f"score: {NO_PAIR}"),
        ("embedding", "combine", [LONELY], f"score: {NO_PAIR}"),
        ("endpoint", "heuristic", [3], f"labels: {UNPARSABLE}'bread, I think'"),
        ("instag", "heuristic", list(range(ROWS)), f"labels: {UNPARSABLE}"),
    ],
)
def test_a_kind_from_the_pool_to_the_report(
    store: Store, models: dict[str, str], server: Server, tmp_path: Path, tagger: str, scorer: str, lost: list[int],
    why: str,
) -> None:  # fmt: skip
    tags, scores = tagger_of(tagger, models, server), scorer_of(scorer, models, server)
    if len(lost) == ROWS:
        # nothing but babble: every row is tried and none is annotated
        for number, found in enumerate((f"{ROWS} x without", f"{ROWS} x annotation failed")):
            with pytest.raises(AnnotationError, match=f"no row of the pool has an annotation .{found}"):
                run(store, tmp_path, tags, scores, number)
        assert store.read(REJECTED).where("reason = 'annotation failed'").count() == ROWS
        return
    first = run(store, tmp_path, tags, scores, 1)
    health = first["health"]
    assert (first["annotated"], first["waiting"], first["rejected"]) == (ROWS - len(lost), len(lost), {})
    assert (health["rows"], health["unanswered"]) == (ROWS - len(lost), len(lost))
    assert health["unparsable"] == (len(lost) if UNPARSABLE in why else 0)
    _check_health(health, tagger)
    rows = {row["id"]: row for row in store.read(ANNOTATED).collect()}
    assert set(rows) == {f"row-{k}" for k in range(ROWS) if k not in lost}
    assert all(row["score"] is not None and row["score"] >= 0 for row in rows.values())
    assert {label for row in rows.values() for label in row["labels"]} <= set(LABELS)

    before = server.requests
    second = run(store, tmp_path, tags, scores, 2)
    asked = server.requests - before
    # only what has no answer is tried, of it only the part that is missing, and an endpoint never in vain
    assert asked == (len(lost) if UNPARSABLE in why else 0)
    assert (second["annotated"], second["rejected"]) == (0, {"annotation failed": len(lost)} if lost else {})
    bad = store.read(REJECTED).where("stage = 'annotate'").collect() if store.exists(REJECTED) else []
    details = [row["detail"] for row in bad]
    assert all(detail.startswith(f"2 runs tried, the last: {why}") for detail in details)
    assert len(details) == len(lost)
    before = server.requests
    assert run(store, tmp_path, tags, scores, 3)["rejected"] == second["rejected"]
    assert server.requests == before


def _check_health(health: dict[str, Any], tagger: str) -> None:
    score = health["score"]
    assert score["min"] <= score["p01"] <= score["median"] <= score["p99"] <= score["max"]
    assert score["min"] < score["mean"] < score["max"]
    wanted = {
        "column": {"labels_outside": ROWS // 2, "labels_a_row": 1.0, "without_labels": 0},
        "embedding": {"labels_a_row": 2.0, "most_labels": 2, "without_labels": 0},
        "distilled": {"most_labels": 2, "without_labels": 0},
        # row 4 was given two labels, one of them not on the list
        "endpoint": {"most_labels": 2, "without_labels": 0},
    }[tagger]
    assert {name: health[name] for name in wanted} == wanted
    if tagger != "column":
        assert health["flags"]["truncated"] == 1
    if tagger in ("column", "endpoint"):
        assert health["flags"]["label_outside"] == (ROWS // 2 if tagger == "column" else 1)


def test_a_part_behind_an_endpoint_is_previewed_and_capped(
    store: Store, models: dict[str, str], server: Server, tmp_path: Path
) -> None:
    tags, scores = tagger_of("column", models, server), scorer_of("combine", models, server)
    # another answer length: another version, nothing of it in the cache
    scores["quality"] = {**scores["quality"], "max_output_tokens": 33}
    config = with_output(make_config(tmp_path, tags, scores, max_requests=10), store)
    before = server.requests
    preview = preview_annotation(store, config)
    assert server.requests == before
    assert (preview.requests, preview.most_completion_tokens) == (ROWS, ROWS * 33)
    assert preview.rows_per_second is not None

    for number in range(2):
        with pytest.raises(AnnotationError, match=r"max_requests = 10"):
            annotate_pool(store, config, f"run-capped-{number}")
        assert server.requests - before == 10 * (number + 1)
    done = annotate_pool(store, config, "run-capped-2")
    assert server.requests - before == ROWS - 1
    assert (done["annotated"], done["waiting"], done["health"]["rows"]) == (ROWS - 1 - 20, 0, ROWS - 1)
    # the row that the model cannot score was tried by the first two runs, and never paid for
    assert done["rejected"] == {"annotation failed": 1}
