"""An endpoint as one half of `combine`, and keys that a secret scope holds."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from tiny_models import save_reward

from mig_spark.annotation.annotators import make_scorer, make_tagger
from mig_spark.annotation.scorers.combine import CombineScorer
from mig_spark.annotation.secrets import look_up_secrets
from mig_spark.annotation.taggers.endpoint import EndpointTagger
from mig_spark.config import build_config
from mig_spark.errors import ConfigError, DependencyError, PlatformError
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, SCORES, TAGS, annotate_batch, start_task
from mig_spark.kernels.annotation.endpoint import NOT_ASKED, UNPARSABLE, look_at_endpoint
from mig_spark.kernels.annotation.heuristics import score_messages
from mig_spark.kernels.annotation.lm_scores import NO_PAIR
from mig_spark.masking import MASK

from oracles.endpoint_server import Say, Server, completion, endpoint

CANARY = "c4n4ry-of-the-vault"


def talk(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": f"about {question}"}]


def batch(questions: list[str], **known: list[Any]) -> pa.RecordBatch:
    columns = {"messages": pa.array([talk(q) for q in questions])}
    for name in (*TAGS, *SCORES):
        values = known.get(name, [None] * len(questions))
        columns[name] = pa.array(values, ARROW_TYPES[name])
    return pa.RecordBatch.from_pydict(columns)


def judge(text: str, before: int, body: dict[str, Any]) -> Say:
    """Quality by the row's number; row 1 gets nonsense."""
    row = int(text.split("user: ")[1].split("\n")[0])
    return completion("good" if row == 1 else {"quality": 1 + row, "complexity": 2})


@pytest.fixture
def server() -> Iterator[Server]:
    with endpoint(judge) as running:
        yield running


def part(url: str, **options: Any) -> dict[str, Any]:
    return {"kind": "endpoint", "base_url": url, "model": "m", "max_wait": 0, **options}


def combined(config: dict[str, Any], rows: pa.RecordBatch, limits: dict[str, Any] | None = None) -> tuple[dict, Any]:
    scorer = make_scorer(CombineScorer(**config))
    assert scorer.step is not None
    made, cost = annotate_batch(rows, start_task([scorer.step], limits))
    return {name: column.to_pylist() for name, column in made.items()}, cost


def test_a_judge_for_one_half(server: Server) -> None:
    config = {"quality": part(server.url), "complexity": {"kind": "heuristic"}}
    made, cost = combined(config, batch(["0", "1", "2"]))
    by_rule = [score_messages(talk(q))[1] for q in ("0", "1", "2")]
    assert made["quality"] == [1.0, None, 3.0]
    assert made["complexity"] == by_rule
    assert made["score"] == [by_rule[0], None, 3.0 * by_rule[2]]
    assert made["score_error"] == [None, f"{UNPARSABLE}'good'", None]
    assert (cost.requests, cost.unparsable, cost.rows) == (3, 1, 3)


def test_the_other_half_as_well(server: Server) -> None:
    config = {"quality": {"kind": "heuristic"}, "complexity": part(server.url)}
    made, _ = combined(config, batch(["0", "2"]))
    assert made["complexity"] == [2.0, 2.0]
    assert made["quality"] == [score_messages(talk(q))[0] for q in ("0", "2")]


def test_a_cap_holds_for_a_half_and_what_was_answered_is_written_through(server: Server, tmp_path: Path) -> None:
    config = {"quality": part(server.url, concurrency=1), "complexity": {"kind": "heuristic"}}
    rows = batch(["0", "2", "3", "4"])
    limits = {"requests": 2, "spill": str(tmp_path / "run" / "0")}
    made, cost = combined(config, rows, limits)
    assert (cost.requests, server.requests) == (2, 2)
    assert [s is None for s in made["score"]] == [False, False, True, True]
    assert made["score_error"][2].startswith(f"{NOT_ASKED}spend cap")
    # the same task once more, with a larger cap: its first attempt counts
    made, cost = combined(config, rows, {**limits, "requests": 4})
    assert (cost.requests, cost.reused, server.requests) == (4, 2, 4)
    assert made["quality"] == [1.0, 3.0, 4.0, 5.0]


def test_a_half_that_was_paid_is_not_asked_for_again() -> None:
    def two_judges(text: str, before: int, body: dict[str, Any]) -> Say:
        row = int(text.split("user: ")[1].split("\n")[0])
        if body["model"] == "hard" and row == 0:
            return completion("no idea")
        return completion({"quality": 5, "complexity": 4})

    with endpoint(two_judges) as running:
        config = {"quality": part(running.url), "complexity": part(running.url, model="hard")}
        made, _ = combined(config, batch(["0", "7"]))
        assert (made["quality"], made["complexity"], made["score"]) == ([5.0, 5.0], [None, 4.0], [None, 20.0])
        assert running.requests == 4
        # the next run finds the half of row 0 in the cache
        again = batch(["0"], quality=[5.0], score_flags=[["truncated"]])
        made, _ = combined(config, again)
        assert running.requests == 5
        assert running.bodies[-1]["model"] == "hard"
    assert (made["quality"], made["score"], made["score_flags"]) == ([5.0], [None], [["truncated"]])


def test_an_endpoint_is_not_asked_about_rows_that_the_other_half_cannot_score(server: Server, tmp_path: Path) -> None:
    reward = {"kind": "reward", "model": save_reward(tmp_path), "device": "cpu"}
    rows = batch(["0", "2"]).set_column(0, "messages", pa.array([talk("0")[:1], talk("2")]))
    made, cost = combined({"quality": part(server.url), "complexity": reward}, rows)
    assert made["score_error"] == [NO_PAIR, None]
    assert (made["quality"], cost.requests) == ([None, 3.0], 1)
    assert made["score"][1] == 3.0 * made["complexity"][1]


def test_what_a_half_says_of_the_whole(server: Server) -> None:
    scorer = make_scorer(CombineScorer(quality=part(server.url, max_tasks=3), complexity={"kind": "heuristic"}))
    assert scorer.step is not None
    assert (scorer.paid, scorer.may_fail, scorer.slow, scorer.max_tasks, scorer.step.asks) == (
        True,
        True,
        True,
        3,
        True,
    )
    free = make_scorer(CombineScorer(quality={"kind": "heuristic"}, complexity={"kind": "heuristic"}))
    assert (free.paid, free.max_tasks) == (False, None)


def test_one_judge_is_not_paid_twice_for_one_row() -> None:
    scorer = {"kind": "combine", "quality": part("http://h/v1"), "complexity": part("http://h/v1", concurrency=2)}
    with pytest.raises(ConfigError, match="set kind: endpoint, not combine"):
        build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": {"scorer": scorer}})


def vault(secrets: dict[tuple[str, str], str]) -> type:
    class DBUtils:
        def __init__(self, spark: Any) -> None:
            self.secrets = SimpleNamespace(get=self.get)

        def get(self, *, scope: str, key: str) -> str:
            if (scope, key) not in secrets:
                raise RuntimeError(f"Secret does not exist with scope: {scope} and key: {key}\n\tat com.databricks")
            return secrets[scope, key]

    return DBUtils


@pytest.fixture
def in_databricks(monkeypatch: pytest.MonkeyPatch) -> None:
    """dbutils exists nowhere else: this is all of it that is used."""
    module = ModuleType("pyspark.dbutils")
    module.DBUtils = vault({("mig", "llm"): f"{CANARY}\n", ("mig", "empty"): " "})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyspark.dbutils", module)


def tagger(url: str, key: str = "llm") -> Any:
    config = EndpointTagger(base_url=url, model="m", max_wait=0, api_key_secret={"scope": "mig", "key": key})
    return make_tagger(config, None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("in_databricks")
def test_a_key_from_a_secret_scope_reaches_the_request_and_nothing_else() -> None:
    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        return Say(401, f"what is {CANARY}?".encode()) if "user: no" in text else completion({"labels": ["a"]})

    with endpoint(reply) as running:
        annotator = tagger(running.url)
        assert CANARY not in repr(annotator)
        secrets = look_up_secrets([annotator.step], None)  # type: ignore[arg-type]
        # the closure of a task is pickled
        steps = start_task([annotator.step], {"secrets": pickle.loads(pickle.dumps(secrets))})
        made, _ = annotate_batch(batch(["yes", "no"]), steps)
    assert running.headers[0]["authorization"] == f"Bearer {CANARY}"
    assert made["labels"].to_pylist()[0] == ["a"]
    assert CANARY not in repr((secrets, steps, made))
    assert f"what is {MASK}?" in made["tag_error"].to_pylist()[1]


@pytest.mark.usefixtures("in_databricks")
@pytest.mark.parametrize(("key", "why"), [("gone", "RuntimeError: Secret does not exist"), ("empty", "is empty")])
def test_a_secret_that_cannot_be_used(key: str, why: str) -> None:
    with pytest.raises(PlatformError, match=f"the key '{key}' of the secret scope 'mig'.*{why}") as error:
        look_up_secrets([tagger("http://h/v1", key).step], None)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_outside_databricks_there_are_no_scopes() -> None:
    with pytest.raises(DependencyError, match=r"no secret scopes here.*api_key_env"):
        look_up_secrets([tagger("http://h/v1").step], None)  # type: ignore[arg-type]
    half = make_scorer(CombineScorer(
        quality=part("http://h/v1", api_key_secret={"scope": "mig", "key": "llm"}), complexity={"kind": "heuristic"}
    ))  # fmt: skip
    with pytest.raises(DependencyError, match="no secret scopes"):
        look_up_secrets([half.step], None)  # type: ignore[arg-type]


def test_where_the_key_is_changes_no_version_and_is_said_once() -> None:
    plain = EndpointTagger(base_url="http://h/v1", model="m")
    assert tagger("http://h/v1").version == make_tagger(plain, None).version  # type: ignore[arg-type]
    both = {"kind": "endpoint", "base_url": "http://h/v1", "model": "m", "api_key_env": "A",
            "api_key_secret": {"scope": "s", "key": "k"}}  # fmt: skip
    with pytest.raises(ConfigError, match="leave one out"):
        build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": {"tagger": both}})


def listed(*names: str) -> Say:
    return Say(body=json.dumps({"object": "list", "data": [{"id": name} for name in names]}).encode())


@pytest.mark.parametrize(
    ("models", "good", "words"),
    [
        (listed("another", "judge"), True, "has judge"),
        (listed("another"), None, "judge is not among its models (another)"),
        (Say(404, b"no such page"), None, "lists no models"),
        (Say(body=b"[1, 2"), None, "lists no models"),
        (Say(body=b'{"data": [3, {"id": 4}]}'), None, "lists no models"),
        (Say(401, b"no right for a-key-of-some-length"), False, "401"),
    ],
)
def test_whether_an_endpoint_answers(
    models: Say, good: bool | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "a-key-of-some-length")
    with endpoint(judge, models=models) as running:
        config = EndpointTagger(base_url=f"{running.url}?api-version=2", model="judge", api_key_env="SOME_KEY")
        told = look_at_endpoint(config.settings())
        assert told[0] is good
        assert words in told[1]
        assert "a-key-of-some-length" not in told[1]
        [asked] = running.headers
    assert (asked["path"], asked["authorization"]) == ("/v1/models?api-version=2", "Bearer a-key-of-some-length")
    assert running.requests == 0
    assert look_at_endpoint(config.settings())[0] is False, "the server has gone"


@pytest.mark.parametrize(("key", "why"), [("", "SOME_KEY is not set"), ("a key-of-some-length", "has a space")])
def test_a_key_that_cannot_be_sent_is_not(key: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", key)
    with endpoint(judge, models=listed("judge")) as running:
        config = EndpointTagger(base_url=running.url, model="judge", api_key_env="SOME_KEY")
        good, said = look_at_endpoint(config.settings())
    assert good is False
    assert why in said
    assert not running.headers


def test_a_key_in_a_secret_scope_is_not_looked_up_to_see_whether_an_endpoint_answers() -> None:
    with endpoint(judge, models=Say(401)) as running:
        secret = {"scope": "s", "key": "llm"}
        config = EndpointTagger(base_url=running.url, model="judge", api_key_secret=secret)
        good, said = look_at_endpoint(config.settings())
        [asked] = running.headers
    assert good is None
    assert "was not sent" in said
    assert "authorization" not in asked
