"""A tagger and a judge behind a real HTTP server that answers slowly, refuses, cuts off and talks nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.annotation.annotators import make_scorer, make_tagger
from mig_spark.annotation.scorers.endpoint import EndpointScorer
from mig_spark.annotation.scorers.heuristic import HeuristicScorer
from mig_spark.annotation.taggers.endpoint import EndpointTagger
from mig_spark.config import build_config
from mig_spark.errors import ConfigError
from mig_spark.kernels.annotation.annotators import (
    ARROW_TYPES,
    ERRORS,
    SCORES,
    TAGS,
    Cost,
    Made,
    annotate_batch,
    start_task,
)
from mig_spark.kernels.annotation.endpoint import NOT_ASKED, UNPARSABLE
from mig_spark.kernels.annotation.http_post import RateLimit, backoff, retry_after
from mig_spark.kernels.annotation.prompts import (
    conversation,
    estimate_tokens,
    is_plain,
    read_labels,
    read_object,
    read_scores,
)
from mig_spark.kernels.annotation.spill import Spill, read_spent, read_spill
from mig_spark.masking import MASK

from oracles.endpoint_server import Say, completion, endpoint

KEY = "sk-the-secret-key"


def batch(texts: list[str]) -> pa.RecordBatch:
    messages = [[{"role": "user", "content": t}, {"role": "assistant", "content": f"about {t}"}] for t in texts]
    columns = {"messages": pa.array(messages)}
    for name in (*TAGS, *SCORES):
        columns[name] = pa.nulls(len(texts), ARROW_TYPES[name])
    return pa.RecordBatch.from_pydict(columns)


def ask(kind: str, url: str, texts: list[str], *, limits: dict[str, Any] | None = None, **options: Any):
    """Run one task over one batch; (made, cost)."""
    config = {"base_url": url, "model": "m", "max_wait": 0.01, **options}
    if kind == "tagger":
        annotator = make_tagger(EndpointTagger(**config), None)  # type: ignore[arg-type]
    else:
        annotator = make_scorer(EndpointScorer(**config))
    assert annotator.step is not None
    made, cost = annotate_batch(batch(texts), start_task([annotator.step], limits))
    return plain(made), cost


def plain(made: Made) -> dict[str, list[Any]]:
    return {name: column.to_pylist() for name, column in made.items()}


def word(text: str) -> str:
    """The row that a request is about."""
    return text.split("user: ")[1].split("\n")[0]


def tags(text: str, before: int, body: dict[str, Any]) -> Say:
    return completion({"labels": [f"about {word(text)}", "all"]})


def test_labels_and_what_they_cost() -> None:
    with endpoint(tags) as server:
        made, cost = ask("tagger", server.url, ["bread", "stars", "bread"], top=2)
    # equal rows are asked for once
    assert made["labels"] == [["about bread", "all"], ["about stars", "all"], ["about bread", "all"]]
    assert made["tag_error"] == [None] * 3
    assert sorted(server.asked.values()) == [1, 1]
    assert (cost.rows, cost.requests, cost.retries) == (3, 2, 0)
    assert (cost.prompt_tokens, cost.completion_tokens) == (100, 20)
    assert server.headers[0]["path"] == "/v1/chat/completions"
    assert "authorization" not in server.headers[0]
    sent = server.bodies[0]
    assert (sent["model"], sent["temperature"], sent["max_tokens"]) == ("m", 0, 256)
    assert sent["response_format"] == {"type": "json_object"}


def test_a_judge_by_rubric() -> None:
    def judge(text: str, before: int, body: dict[str, Any]) -> Say:
        assert "quality" in body["messages"][0]["content"]
        return completion({"quality": 4.5, "complexity": 2} if word(text) == "a" else {"quality": 9, "complexity": 2})

    with endpoint(judge) as server:
        made, cost = ask("scorer", server.url, ["a", "b"])
    assert [made[n] for n in ("quality", "complexity", "score")] == [[4.5, None], [2.0, None], [9.0, None]]
    assert made["score_error"][0] is None
    assert made["score_error"][1].startswith(UNPARSABLE)
    assert cost.unparsable == 1


def test_what_passes_is_tried_again_and_what_does_not_is_not() -> None:
    first = {
        "429": Say(429, b"slow down", {"Retry-After": "0"}), "500": Say(500), "503": Say(503, b"<html>"),
        "408": Say(408), "409": Say(409), "garbage": Say(200, b"\xff\x00 not json"),
        "no choices": Say(200, b'{"id": 3}'), "cut": Say(200, b'{"choices": [', cut=True),
        "400": Say(400, b'{"error": "too long"}'), "422": Say(422),
    }  # fmt: skip

    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        return first[word(text)] if before == 0 else tags(text, before, body)

    with endpoint(reply) as server:
        made, cost = ask("tagger", server.url, list(first), concurrency=3)
    assert {word(text): n for text, n in server.asked.items()} == dict.fromkeys(first, 2) | {"400": 1, "422": 1}
    bad = {name: error for name, error in zip(first, made["tag_error"], strict=True) if error}
    assert bad == {"400": 'HTTP 400: {"error": "too long"}', "422": "HTTP 422"}
    assert [labels is None for labels in made["labels"]] == [name in bad for name in first]
    assert (cost.requests, cost.retries) == (18, 8)
    assert server.most_at_once <= 3


@pytest.mark.parametrize("header", ["0", "-3", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", None])
def test_a_wait_of_no_time_is_the_usual_pause(header: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[int] = []

    def pause(tries: int, **_: float) -> float:
        pauses.append(tries)
        return 0.0

    monkeypatch.setattr("mig_spark.kernels.annotation.endpoint.backoff", pause)
    headers = {} if header is None else {"Retry-After": header}
    with endpoint(lambda *_: Say(429, b"", headers)) as server:
        ask("tagger", server.url, ["a"], max_tries=4)
    assert pauses == [1, 2, 3]


def test_a_server_that_never_answers_in_time_is_given_up_on() -> None:
    with endpoint(tags, delay=1.0) as server:
        made, _ = ask("tagger", server.url, ["a"], timeout=0.3, max_tries=2)
    assert made["tag_error"] == ["no answer in 0.3 s"]
    assert server.requests == 2


def test_nobody_listens() -> None:
    made, _ = ask("tagger", "http://127.0.0.1:9/v1", ["a"], max_tries=2)
    assert made["labels"] == [None]
    assert "ConnectionRefusedError" in made["tag_error"][0]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_stops_the_task_and_the_key_is_never_shown(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with endpoint(lambda *_: Say(status, f"bad key {KEY}".encode())) as server:
        made, _ = ask("tagger", server.url, [str(n) for n in range(50)], api_key_env="MY_KEY", concurrency=2)
    assert server.requests <= 4
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert all(error.startswith(f"{NOT_ASKED}refused: HTTP {status}: bad key {MASK}") for error in made["tag_error"])
    assert KEY not in str(made)


def test_without_its_key_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with endpoint(tags) as server:
        made, cost = ask("tagger", server.url, ["a"], api_key_env="NO_SUCH_KEY")
    assert (server.requests, cost.requests) == (0, 0)
    assert "NO_SUCH_KEY is not set" in made["tag_error"][0]


def test_another_header_carries_the_key_bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", f"{KEY}\n")
    with endpoint(tags) as server:
        ask("tagger", f"{server.url}?api-version=1", ["a"], api_key_env="MY_KEY", auth_header="api-key")
    assert server.headers[0]["api-key"] == KEY
    assert server.headers[0]["path"] == "/v1/chat/completions?api-version=1"
    with endpoint(tags) as server:
        ask("tagger", server.url, ["a"], api_key_env="MY_KEY", auth_header="authorization")
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_the_key_is_in_no_step_that_travels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    config = EndpointTagger(base_url="http://h/v1", model="m", api_key_env="MY_KEY")
    tagger = make_tagger(config, None)  # type: ignore[arg-type]
    assert KEY not in repr(tagger)


def test_an_outage_opens_the_breaker_and_is_not_held_against_the_rows() -> None:
    with endpoint(lambda *_: Say(500)) as server:
        made, _ = ask("tagger", server.url, [str(n) for n in range(200)], max_tries=2, breaker=5, concurrency=2)
    assert server.requests <= 2 * (5 + 2)
    assert all(error.startswith(f"{NOT_ASKED}too many failures") for error in made["tag_error"])


def test_failures_between_answers_do_not_open_it() -> None:
    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        return Say(400) if int(word(text)) % 3 else tags(text, before, body)

    with endpoint(reply) as server:
        made, _ = ask("tagger", server.url, [str(n) for n in range(30)], breaker=3, concurrency=1)
    assert server.requests == 30
    assert [error is None for error in made["tag_error"]] == [n % 3 == 0 for n in range(30)]


def test_rows_that_are_refused_for_their_own_sake_open_no_breaker() -> None:
    with endpoint(lambda *_: Say(400, b"too long")) as server:
        made, _ = ask("tagger", server.url, [str(n) for n in range(30)], breaker=3, concurrency=2)
    assert server.requests == 30
    assert set(made["tag_error"]) == {"HTTP 400: too long"}

    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        return Say(400) if word(text) == "1" else Say(500)

    with endpoint(reply) as server:
        made, _ = ask("tagger", server.url, [str(n) for n in range(9)], breaker=3, concurrency=1, max_tries=1)
    # an outage changes nothing of what was said of a row before it was seen
    assert made["tag_error"][1] == "HTTP 400"
    assert all(e.startswith(f"{NOT_ASKED}too many failures") for n, e in enumerate(made["tag_error"]) if n != 1)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_after_a_good_answer_a_refusal_is_of_one_row_but_for_a_bad_key(status: int) -> None:
    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        return Say(status) if word(text) == "1" else tags(text, before, body)

    with endpoint(reply) as server:
        made, _ = ask("tagger", server.url, ["0", "1", "2"], concurrency=1)
    stops = f"{NOT_ASKED}refused: HTTP 401"
    assert made["tag_error"] == ([None, stops, stops] if status == 401 else [None, f"HTTP {status}", None])


@pytest.mark.parametrize(("limits", "answered"), [({"requests": 7}, 7), ({"requests": 0}, 0), ({"requests": 99}, 20)])
def test_a_cap_on_requests_is_kept(limits: dict[str, int], answered: int) -> None:
    with endpoint(tags) as server:
        made, cost = ask("tagger", server.url, [str(n) for n in range(20)], limits=limits)
    assert server.requests == cost.requests == answered
    assert sum(labels is not None for labels in made["labels"]) == answered
    assert {e for e in made["tag_error"] if e} <= {f"{NOT_ASKED}spend cap: what the run may spend is spent"}


def test_a_cap_on_requests_covers_tries_and_both_annotators() -> None:
    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        if "labels" in body["messages"][0]["content"]:
            return Say(500) if before == 0 else tags(text, before, body)
        return completion({"quality": 3, "complexity": 3})

    with endpoint(reply) as server:
        steps = [
            a.step
            for a in (
                make_tagger(EndpointTagger(base_url=server.url, model="m", max_wait=0), None),  # type: ignore[arg-type]
                make_scorer(EndpointScorer(base_url=server.url, model="m", max_wait=0)),
            )
        ]
        made, cost = annotate_batch(batch([str(n) for n in range(4)]), start_task(steps, {"requests": 10}))
    assert cost.requests == server.requests == 10
    assert made["labels"].null_count == 0
    assert made["score"].null_count == 2


def test_a_cap_on_tokens_is_kept() -> None:
    with endpoint(tags) as server:
        made, cost = ask("tagger", server.url, [str(n) for n in range(40)], limits={"tokens": 1500}, concurrency=4)
    assert 0 < cost.prompt_tokens + cost.completion_tokens <= 1500
    assert cost.requests == server.requests < 40
    assert None in made["labels"]


@pytest.mark.parametrize(
    ("say", "delay"),
    [
        (completion({"labels": ["a"]}), 1.0),
        (Say(200, b'{"choices": [', cut=True), 0),
        (completion({"labels": ["a" * 9000]}), 0),
    ],
    ids=["late", "cut off", "too long"],
)
def test_an_answer_that_was_not_read_counts_as_likely(say: Say, delay: float, tmp_path: Path) -> None:
    limits = {"tokens": 5000, "spill": str(tmp_path / "run" / "000000")}
    few = {"timeout": 0.3 if delay else 30, "max_tries": 2, "max_response_bytes": 4096, "concurrency": 1, "breaker": 99}
    with endpoint(lambda *_: say, delay=delay) as server:
        made, cost = ask("tagger", server.url, [str(n) for n in range(40)], limits=limits, **few)
    tokens = cost.prompt_tokens + cost.completion_tokens
    # a request likely takes 256 tokens for its answer and half of that for itself
    assert 4500 < tokens <= 5000
    assert cost.requests < 40
    assert made["tag_error"][-1] == f"{NOT_ASKED}spend cap: what the run may spend is spent"
    # another try of the task knows of it
    spent = read_spent(str(tmp_path / "run" / "000000"), 0)
    assert (spent.requests, spent.prompt_tokens + spent.completion_tokens) == (cost.requests, tokens)


def test_a_request_that_did_not_go_out_costs_no_tokens() -> None:
    made, cost = ask("tagger", "http://127.0.0.1:9/v1", ["a"], max_tries=2, limits={"tokens": 500})
    assert "ConnectionRefusedError" in made["tag_error"][0]
    assert (cost.requests, cost.prompt_tokens, cost.completion_tokens) == (2, 0, 0)


def test_answers_are_written_through_and_read_by_the_next_attempt(tmp_path: Path) -> None:
    limits = {"spill": str(tmp_path / "run" / "000000"), "earlier": []}

    def first(text: str, before: int, body: dict[str, Any]) -> Say:
        return Say(401) if word(text) == "9" else completion("no JSON" if word(text) == "3" else {"labels": ["x"]})

    texts = [str(n) for n in range(10)]
    with endpoint(first) as server:
        ask("tagger", server.url, texts, limits=limits, concurrency=1)
        assert server.requests == 10
        made, cost = ask("tagger", server.url, texts, limits=limits)
        # only the row without an answer is asked again; what could not be read was paid, and cannot be read again
        assert server.requests == 11
        # the first attempt's requests are part of what the task has cost
        assert (cost.requests, cost.reused, cost.unparsable) == (11, 9, 1)
        assert (cost.prompt_tokens, cost.completion_tokens) == (450, 90)
        assert made["tag_error"][3] == f"{UNPARSABLE}'no JSON'"
        # a run that comes after finds them too
        later = {"spill": str(tmp_path / "later" / "000000"), "earlier": [str(tmp_path / "run" / "000000")]}
        _, cost = ask("tagger", server.url, texts[:9], limits=later)
        assert (server.requests, cost.reused) == (11, 9)
        # another model is another question
        _, cost = ask("tagger", server.url, texts[:2], limits=later, model="other")
        assert cost.reused == 0
    assert KEY not in "".join(f.read_text() for f in tmp_path.rglob("*.jsonl"))


def test_a_line_cut_short_by_a_kill_is_passed_over(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path / "a"), "1")
    spill.add({"key": "k1", "text": "é\n", "cut": False})
    # no close: the process may die here, and the line is there
    file = next(tmp_path.rglob("*.jsonl"))
    with file.open("ab") as f:
        f.write(b'{"key": "k2", "te')
    found = read_spill([str(tmp_path / "a"), str(tmp_path / "nowhere")])
    assert found == {"k1": {"key": "k1", "text": "é\n", "cut": False}}
    spill.close()


def test_where_files_show_only_when_closed_each_part_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mig_spark.kernels.annotation.spill._CLOSED_ONLY", (str(tmp_path),))
    spill = Spill(str(tmp_path / "a"), "1")
    for k in range(3):
        spill.add({"key": str(k), "text": "t", "cut": False})
    assert "0" in read_spill([str(tmp_path / "a")])
    spill.close()
    assert set(read_spill([str(tmp_path / "a")])) == {"0", "1", "2"}


def test_choosing_from_a_list(tmp_path: Path) -> None:
    listed = tmp_path / "labels.json"
    listed.write_text(json.dumps(["baking", "history"]))
    with endpoint(lambda *_: completion({"labels": ["Baking", "no such label"]})) as server:
        made, _ = ask("tagger", server.url, ["a"], vocabulary=str(listed))
    assert made["labels"] == [["baking"]]
    assert made["tag_flags"] == [["label_outside"]]
    assert '["baking", "history"]' in server.bodies[0]["messages"][0]["content"]


LONG = "the user asks for " + "a very " * 20 + "long label"


@pytest.mark.parametrize(
    ("said", "labels", "outside"),
    [
        (["Go"], ["Go"], False),
        (["go"], ["go"], False),
        (["two  blanks"], ["two  blanks"], False),
        (["Two blanks"], ["two  blanks"], False),
        ([LONG], [LONG], False),
        ([LONG.upper(), "  "], [LONG], False),
        (["go", "go"], ["go"], False),
        (["chess", "go"], ["go"], True),
        ([LONG + "s"], None, False),
        (["go", 3], None, False),
    ],
)
def test_a_label_of_a_list_is_found_exactly_then_by_its_words(
    said: list[Any], labels: list[str] | None, outside: bool, tmp_path: Path
) -> None:
    listed = tmp_path / "labels.json"
    listed.write_text(json.dumps(["Go", "go", "two  blanks", LONG]))
    with endpoint(lambda *_: completion({"labels": said})) as server:
        made, _ = ask("tagger", server.url, ["a"], vocabulary=str(listed))
    assert (made["labels"], made["tag_flags"]) == ([labels], [["label_outside"] * outside])
    assert (made["tag_error"][0] or "").startswith(UNPARSABLE if labels is None else "")


@pytest.mark.parametrize(
    ("vocabulary", "plain"),
    [(["a", "b c"], True), (["Go", "go"], False), (["a  b"], False), (["a" * 100], True), (["a" * 101], False)],
)
def test_which_lists_were_read_alike_before_labels_were_looked_for_exactly(vocabulary: list[str], plain: bool) -> None:
    # the version of other lists stays: their answers are paid
    assert is_plain(vocabulary) is plain


def test_the_language_of_labels(tmp_path: Path) -> None:
    listed = tmp_path / "labels.json"
    listed.write_text(json.dumps(["烹饪", "历史"], ensure_ascii=False))
    with endpoint(lambda *_: completion({"labels": ["历史"]})) as server:
        for options in ({}, {"language": "French"}, {"language": None}, {"vocabulary": str(listed)}):
            ask("tagger", server.url, ["a"], **options)
    asked = [body["messages"][0]["content"] for body in server.bodies]
    for text, said in zip(
        asked, ("in English", "in French", "in the language of the conversation", "历史"), strict=True
    ):
        assert said in text
    # a list is in whatever language it is in
    assert "English" not in asked[3]


def test_long_rows_lose_their_middle_and_say_so() -> None:
    with endpoint(lambda *_: completion({"labels": []})) as server:
        made, _ = ask("tagger", server.url, ["short", "start " + "x" * 5000 + " end"], max_chars=600)
    assert made["tag_flags"] == [[], ["truncated"]]
    assert made["labels"] == [[], []]
    long = max((b["messages"][1]["content"] for b in server.bodies), key=len)
    assert "start" in long
    assert long.endswith("end\n</conversation>")
    assert len(long) < 700


def test_the_body_of_the_request_can_be_changed() -> None:
    body = {"max_tokens": None, "max_completion_tokens": 99, "temperature": None}
    with endpoint(tags) as server:
        ask("tagger", server.url, ["a"], body=body)
    assert server.bodies[0]["max_completion_tokens"] == 99
    assert not {"max_tokens", "temperature"} & set(server.bodies[0])


def test_an_answer_cut_at_the_limit_says_so() -> None:
    with endpoint(lambda *_: completion('{"labels": ["a', finish="length")) as server:
        made, _ = ask("tagger", server.url, ["a"])
    assert made["tag_error"] == [f"""{UNPARSABLE}cut at max_output_tokens, '{{"labels": ["a'"""]


def test_a_refusal_without_content_is_unparsable_and_not_asked_again() -> None:
    with endpoint(lambda *_: completion(None)) as server:
        made, _ = ask("tagger", server.url, ["a"])
    assert made["tag_error"] == [f"{UNPARSABLE}''"]
    assert server.requests == 1


def test_versions_change_with_what_changes_answers() -> None:
    base = {"base_url": "http://h/v1", "model": "m"}

    def version(**changed: Any) -> str:
        return make_tagger(EndpointTagger(**{**base, **changed}), None).version  # type: ignore[arg-type]

    same = {version(), version(base_url="http://other/v1"), version(concurrency=2, timeout=5, requests_per_second=3)}
    other = [
        version(model="n"),
        version(top=3),
        version(language=None),
        version(max_chars=900),
        version(body={"seed": 1}),
    ]
    assert len(same) == 1
    assert len({*same, *other}) == 6


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://h/v1", "http://user:word@h/v1", "http:///v1"])
def test_addresses_that_cannot_be(url: str) -> None:
    plain = {"pool": {"path": "p"}, "output": {"path": "o"}}
    tagger = {"kind": "endpoint", "base_url": url, "model": "m"}
    with pytest.raises(ConfigError, match="base_url"):
        build_config({**plain, "annotate": {"tagger": tagger}})


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ('{"labels": ["a", "b"]}', ["a", "b"]),
        ('{"labels": []}', []),
        ('```json\n{"labels": ["a"]}\n```', ["a"]),
        ('Sure! Here it is: {"labels": ["a",]} Hope that helps.', ["a"]),
        ('<think>maybe {"labels": ["no"]}</think>{"labels": ["yes"]}', ["yes"]),
        ('{"labels": [" a  b ", "a b", ""]}', ["a b"]),
        ('{"labels": ["中文", "é"], "why": 1}', ["中文", "é"]),
        ('{"labels": ["a", "b", "c", "d"]}', ["a", "b", "c"]),
        ('{"labels": "a"}', None),
        ('{"labels": ["a", 1]}', None),
        ('{"labels": ["a", null]}', None),
        ('{"labels": {"a": 1}}', None),
        ('{"tags": ["a"]}', None),
        ('["a"]', None),
        ('{"labels": ["a"', None),
        ("{'labels': ['a']}", None),
        ("a, b, c", None),
        ("", None),
        (json.dumps({"labels": ["x" * 101]}), None),
        ("[" * 100_000, None),
    ],
)
def test_labels_are_read_strictly(answer: str, labels: list[str] | None) -> None:
    assert read_labels(answer, 3) == labels


@pytest.mark.parametrize(
    ("answer", "scores"),
    [
        ('{"quality": 1, "complexity": 6}', (1.0, 6.0)),
        ('```\n{"complexity": 2.5, "quality": 3}\n```', (3.0, 2.5)),
        ('{"quality": 0, "complexity": 3}', None),
        ('{"quality": 6.5, "complexity": 3}', None),
        ('{"quality": "5", "complexity": 3}', None),
        ('{"quality": true, "complexity": 3}', None),
        ('{"quality": NaN, "complexity": 3}', None),
        ('{"quality": 5}', None),
        ("5", None),
    ],
)
def test_scores_are_read_strictly(answer: str, scores: tuple[float, float] | None) -> None:
    assert read_scores(answer) == scores


@given(st.text())
def test_reading_never_raises(answer: str) -> None:
    found = read_object(answer)
    assert found is None or isinstance(found, dict)


@given(st.lists(st.text(min_size=1, max_size=20).map(lambda t: " ".join(t.split())).filter(bool), unique=True))
def test_what_a_model_says_rightly_comes_back(labels: list[str]) -> None:
    assert read_labels(json.dumps({"labels": labels}), 1000) == labels


@given(st.text(max_size=3000), st.integers(200, 1000))
def test_a_row_keeps_within_its_characters(text: str, most: int) -> None:
    seen, cut = conversation([{"role": "user", "content": text}], most)
    assert cut == (len("user: ") + len(text) > most)
    assert len(seen) <= most + len("<conversation>\n\n[...]\n\n</conversation>")


def test_tokens_of_other_scripts_are_not_underestimated() -> None:
    assert estimate_tokens("a" * 400) == 101
    assert estimate_tokens("语" * 400) == 401


def test_a_rate_is_kept() -> None:
    now = [0.0]
    limit = RateLimit(4.0, clock=lambda: now[0])
    waits = [limit.take() for _ in range(9)]
    assert waits == [0.0, *(n / 4 for n in range(1, 9))]
    now[0] = 100.0
    # an idle second buys four at once, not more
    assert [limit.take() for _ in range(5)] == [0.0, 0.0, 0.0, 0.0, 0.25]
    limit.close_for(7.0)
    assert limit.take() == 7.0
    assert RateLimit(None).take() == 0.0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("-2", 0.0), ("99999", 300.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
     ("soon", None), ("nan", None), (None, None)],
)  # fmt: skip
def test_what_a_server_asks_to_wait(header: str | None, seconds: float | None) -> None:
    assert retry_after(header) == seconds


@given(st.integers(1, 50))
def test_pauses_grow_to_a_limit(tries: int) -> None:
    assert 0 <= backoff(tries, base=1.0, longest=30.0) <= min(30.0, 2.0 ** (tries - 1))


def test_a_kernel_without_errors_leaves_them_empty() -> None:
    made, cost = annotate_batch(batch(["a"]), start_task([make_scorer(HeuristicScorer()).step]))
    assert [made[name].to_pylist() for name in ERRORS] == [[None], [None]]
    assert cost == Cost(rows=1, seconds=cost.seconds)
