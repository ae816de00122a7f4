"""Whatever a server sends ends as an answer or as a row with a reason, in time and in bounds: no task fails."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mig_spark.annotation.annotators import make_scorer, make_tagger
from mig_spark.annotation.scorers.endpoint import EndpointScorer
from mig_spark.annotation.taggers.endpoint import EndpointTagger
from mig_spark.kernels.annotation.annotators import ARROW_TYPES, SCORES, TAGS, Cost, annotate_batch, start_task
from mig_spark.kernels.annotation.endpoint import NOT_ASKED, UNPARSABLE
from mig_spark.kernels.annotation.http_post import retry_after
from mig_spark.kernels.annotation.instag import parse_tags
from mig_spark.kernels.annotation.prompts import read_labels, read_scores, without_thinking
from mig_spark.kernels.annotation.spill import Spill, answer_line, asked_line, nothing_line, read_spent, spill_files

from oracles.endpoint_server import Say, Server, completion, endpoint

GOOD = {"labels": ["a"], "quality": 3, "complexity": 2}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8)
    | st.sampled_from([10**400, -(10**400), "\ud800", "a", 1e308]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["labels", "quality", "complexity", "x", "\udfff"]), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
CONTENT = JSON.map(json.dumps) | st.text(st.characters(), max_size=20) | JSON
USAGE = JSON | st.fixed_dictionaries({"prompt_tokens": JSON, "completion_tokens": JSON})
MESSAGE = st.fixed_dictionaries({"content": CONTENT}) | JSON
CHOICE = st.fixed_dictionaries({"message": MESSAGE, "finish_reason": JSON}) | JSON
BODY = st.fixed_dictionaries({"choices": st.lists(CHOICE, max_size=2) | JSON, "usage": USAGE}) | JSON


class Talk:
    """What the server says next."""

    def __init__(self) -> None:
        self.say = Say()

    def __call__(self, text: str, before: int, body: dict[str, Any]) -> Say:
        return self.say


@pytest.fixture(scope="module")
def talk() -> Talk:
    return Talk()


@pytest.fixture(scope="module")
def server(talk: Talk) -> Iterator[Server]:
    with endpoint(talk) as running:
        yield running


def ask(
    url: str, texts: list[str], *, kind: str = "tagger", limits: dict[str, Any] | None = None, **options: Any
) -> tuple[dict[str, list[Any]], Cost]:
    """One task over one batch."""
    config = {"base_url": url, "model": "m", "max_wait": 0, "max_tries": 2, **options}
    columns: dict[str, Any] = {"messages": pa.array([[{"role": "user", "content": text}] for text in texts])}
    columns |= {name: pa.nulls(len(texts), ARROW_TYPES[name]) for name in (*TAGS, *SCORES)}
    tagger = make_tagger(EndpointTagger(**config), None) if kind == "tagger" else None  # type: ignore[arg-type]
    step = (tagger or make_scorer(EndpointScorer(**config))).step
    assert step is not None
    made, cost = annotate_batch(pa.RecordBatch.from_pydict(columns), start_task([step], limits))
    return {name: column.to_pylist() for name, column in made.items()}, cost


def answered_or_told(made: dict[str, list[Any]], kind: str) -> None:
    """A row has an answer or a reason, and not both."""
    name, error = ("labels", "tag_error") if kind == "tagger" else ("score", "score_error")
    for value, reason in zip(made[name], made[error], strict=True):
        assert (value is None) == (reason is not None)
        assert reason is None or len(reason) < 500


@pytest.mark.parametrize("kind", ["tagger", "scorer"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=BODY.map(json.dumps).map(str.encode) | st.binary(max_size=60))
def test_any_body_ends_as_an_answer_or_a_reason(
    kind: str, body: bytes, talk: Talk, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    spill = str(tmp_path_factory.mktemp("spill") / "000000")
    talk.say = Say(body=body)
    made, cost = ask(server.url, ["a"], kind=kind, limits={"spill": spill, "tokens": 10**6})
    answered_or_told(made, kind)
    assert all(float(value) >= 0 for value in vars(cost).values())
    # the next run, which finds what was paid
    again, _ = ask(server.url, ["a"], kind=kind, limits={"earlier": [spill], "aside": f"{spill}-aside"})
    answered_or_told(again, kind)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    raw=st.binary(max_size=80)
    | st.tuples(
        st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 99999 \r\n", b"HTTP/1.1 500\r\n", b"HTTP/1.1 101 \r\n"]),
        st.sampled_from([b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: -5\r\n\r\n", b"\r\n", b"a\r\n\r\n",
                         b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"Retry-After: 1e999\r\n\r\n"]),
        st.sampled_from([b"-5\r\nabc", b"-1\r\nabc", b"fffffffffffffffff\r\nabc", b"{}", b"0\r\n\r\n"]) | st.binary(),
    ).map(b"".join)
)  # fmt: skip
def test_any_bytes_in_place_of_http_end_as_a_reason(raw: bytes, talk: Talk, server: Server) -> None:
    talk.say = Say(raw=raw)
    made, _ = ask(server.url, ["a"], timeout=5, max_tries=1)
    answered_or_told(made, "tagger")


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"labels": ["\\ud800"]}', UNPARSABLE),
        ('{"labels": ["\ud800"]}', UNPARSABLE),
        (f'{{"labels": {deep(20_000)}}}', UNPARSABLE),
        (f'{{"labels": ["a"], "why": {"9" * 10_000}}}', UNPARSABLE),
        ('{"labels": ["\\ud83d\\ude00", "a"]}', None),
    ],
)  # fmt: skip
def test_labels_that_no_table_holds(content: str, error: str | None) -> None:
    with endpoint(lambda *_: completion(content)) as server:
        made, _ = ask(server.url, ["a"])
    answered_or_told(made, "tagger")
    assert (made["tag_error"][0] or "").startswith(error or "")
    assert made["labels"] == [None if error else ["\U0001f600", "a"]]


@pytest.mark.parametrize("grade", [10**400, -(10**400), float("nan"), float("inf"), True, "3", None])
def test_grades_that_are_none(grade: Any) -> None:
    assert read_scores(json.dumps({"quality": grade, "complexity": 2})) is None


@pytest.mark.parametrize("tokens", ["1e999", "-1e999", "9" * 5000, "NaN", '"7"', "true", "-3", "[]", "1e300"])
def test_a_count_of_tokens_that_is_none_is_estimated(tokens: str) -> None:
    body = json.dumps({"choices": [{"message": {"content": '{"labels": ["a"]}'}}], "usage": {"prompt_tokens": 0}})
    body = body.replace('"prompt_tokens": 0', f'"prompt_tokens": {tokens}, "completion_tokens": {tokens}')
    with endpoint(lambda *_: Say(body=body.encode())) as server:
        made, cost = ask(server.url, ["a"])
    assert made["labels"] == [["a"]]
    assert 50 < cost.prompt_tokens < 1000
    assert 0 < cost.completion_tokens < 50


def test_a_body_nested_thousands_deep_is_a_reason() -> None:
    with endpoint(lambda *_: Say(body=f'{{"choices": {deep(100_000)}}}'.encode())) as server:
        made, _ = ask(server.url, ["a"])
    assert made["tag_error"] == ["the server said 200 and sent something that is no JSON object"]
    assert server.requests == 2


def test_thinking_that_never_ends_takes_no_longer() -> None:
    started = time.perf_counter()
    assert read_labels("<think>" * 300_000 + '{"labels": ["a"]}', 3) == ["a"]
    assert without_thinking("a<think>b</think>c<think>d</think><think>") == "ac<think>"
    assert time.perf_counter() - started < 2


def test_tags_of_a_model_in_the_executor_are_held_to_the_same() -> None:
    assert parse_tags('["a", "\\ud800 b"]') is None


@settings(max_examples=200)
@given(
    st.text(max_size=40)
    | st.sampled_from(["Mon, 01 Jan 0001 00:00:00 -0000", "Mon, 99 Jan 99999999999 1:1:1", "1e999"])
)
def test_any_wait_that_is_asked_for(header: str) -> None:
    seconds = retry_after(header)
    assert seconds is None or 0 <= seconds <= 300


@pytest.mark.parametrize(
    "say",
    [
        Say(body=b" " * 10_000, drip=0.05),
        Say(raw=b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000, drip=0.05),
        Say(status=500, body=b" " * 10_000, drip=0.05),
    ],
    ids=["body", "headers", "error"],
)
def test_a_drip_of_bytes_ends_with_the_time_of_a_request(say: Say) -> None:
    with endpoint(lambda *_: say) as server:
        started = time.perf_counter()
        made, _ = ask(server.url, ["a"], timeout=0.4)
        took = time.perf_counter() - started
    assert made["tag_error"] == ["no answer in 0.4 s"]
    assert server.requests == 2
    assert took < 4


@pytest.mark.parametrize("status", [200, 400])
def test_a_body_without_end_is_cut_off(status: int) -> None:
    mb = 2**20
    with endpoint(lambda *_: Say(status, b"a" * mb, times=600)) as server:
        made, _ = ask(server.url, ["a"], max_response_bytes=mb)
    told = "the answer is longer than 1048576 bytes (max_response_bytes)"
    assert made["tag_error"][0].startswith(told if status == 200 else "HTTP 400: aaa")
    # what the two ends of a socket hold is on its way
    assert server.sent < 50 * mb
    assert server.requests == 1


def test_an_answer_as_long_as_allowed_is_read() -> None:
    with endpoint(lambda *_: completion('{"labels": ["a"]}' + " " * 5000)) as server:
        short, _ = ask(server.url, ["a"], max_response_bytes=2000)
        long, _ = ask(server.url, ["a"], max_response_bytes=8000)
    assert (short["labels"], long["labels"]) == ([None], [["a"]])


def test_what_is_packed_is_not_unpacked() -> None:
    with endpoint(lambda *_: Say(200, b"\x1f\x8b\x08", {"Content-Encoding": "gzip"})) as server:
        made, _ = ask(server.url, ["a"])
    assert "no JSON object" in made["tag_error"][0]
    assert server.headers[0]["accept-encoding"] == "identity"


def test_a_redirect_is_not_followed_and_no_cookie_kept() -> None:
    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        return Say(307, b"", {"Location": "/elsewhere", "Set-Cookie": "a=b"}) if "x" in text else completion(GOOD)

    with endpoint(reply) as server:
        made, _ = ask(server.url, ["x", "y"], concurrency=1)
    assert made["tag_error"] == ["HTTP 307", None]
    assert [headers["path"] for headers in server.headers] == ["/v1/chat/completions"] * 2
    assert not any("cookie" in headers for headers in server.headers)


@pytest.mark.parametrize("proxy", ["http://h:99999", "socks5://h:1", "ftp://h", "http://[", "http://h\n:1"])
def test_a_proxy_that_cannot_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    made, _ = ask("https://h.invalid/v1", ["a"], timeout=5)
    assert "the proxy that HTTPS_PROXY names cannot be used" in made["tag_error"][0]
    assert proxy not in made["tag_error"][0]


def test_a_cap_holds_over_the_attempts_of_a_task(tmp_path: Path) -> None:
    limits = {"spill": str(tmp_path / "run" / "000000"), "requests": 6}
    texts = [str(n) for n in range(10)]

    def reply(text: str, before: int, body: dict[str, Any]) -> Say:
        return completion(GOOD) if before else Say(500)

    with endpoint(reply) as server:
        # an attempt that dies takes what it would have said with it
        ask(server.url, texts, limits=limits, concurrency=1)
        assert server.requests == 6
        made, cost = ask(server.url, texts, limits={**limits, "attempt": 1})
        assert server.requests == 6
        assert (cost.requests, cost.reused) == (6, 3)
        assert [labels is not None for labels in made["labels"]] == [n < 3 for n in range(10)]
        # another task of the chunk has a cap of its own
        ask(server.url, texts, limits={**limits, "partition": 1}, concurrency=1)
        assert server.requests == 12


def test_what_was_on_its_way_when_a_task_died_counts_as_likely(tmp_path: Path) -> None:
    spill = Spill(str(tmp_path), "task-00003")
    for line in (
        asked_line("a", 100), answer_line("a", "t", False, 50, 7), asked_line("b", 40), nothing_line("b"),
        asked_line("b", 40), asked_line("c", 30),
    ):  # fmt: skip
        spill.add(line)
    (tmp_path / "task-00003-00000000.jsonl").write_text(
        '{"ask": 3}\n{"key": 1}\n[]\n{"ask": "z", "tokens": "x"}\nnull{'
    )
    spent = read_spent(str(tmp_path), 3)
    assert (spent.requests, spent.prompt_tokens, spent.completion_tokens) == (5, 50 + 40 + 30, 7)
    assert read_spent(str(tmp_path), 4).requests == 0
    spill.close()


def test_without_a_folder_a_capped_task_does_not_ask_twice() -> None:
    with endpoint(lambda *_: completion(GOOD)) as server:
        made, _ = ask(server.url, ["a"], limits={"requests": 5, "attempt": 1})
        assert made["tag_error"][0].startswith(f"{NOT_ASKED}spent without a record: a try of this task died")
        assert server.requests == 0
        # nothing to keep to, nothing to refuse
        made, _ = ask(server.url, ["a"], limits={"attempt": 1})
    assert made["labels"] == [["a"]]


def test_an_answer_of_a_run_that_died_is_used_once_where_it_cannot_be_read(tmp_path: Path) -> None:
    first, aside = str(tmp_path / "dead" / "000000"), str(tmp_path / "set-aside" / "second")
    content = ["I would rather not"]

    with endpoint(lambda *_: completion(content[0])) as server:
        ask(server.url, ["a"], limits={"spill": first})
        made, cost = ask(server.url, ["a"], limits={"earlier": [first], "aside": aside})
        assert (made["tag_error"], cost.reused, server.requests) == ([f"{UNPARSABLE}'I would rather not'"], 1, 1)
        kept = [json.loads(file.read_bytes()) for file in spill_files(aside)]
        assert [record["text"] for record in kept] == ["I would rather not"]
        content[0] = '{"labels": ["a"]}'
        made, cost = ask(server.url, ["a"], limits={"earlier": [first], "gone": [aside]})
    assert (made["labels"], cost.reused, server.requests) == ([["a"]], 0, 2)


def test_an_answer_with_the_key_in_it_goes_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-c4n4ry-in-an-answer"
    monkeypatch.setenv("MY_KEY", key)
    spill = tmp_path / "run" / "000000"
    with endpoint(lambda *_: completion({"labels": [key]})) as server:
        made, cost = ask(server.url, ["a"], limits={"spill": str(spill)}, api_key_env="MY_KEY")
    assert made["labels"] == [None]
    assert made["tag_error"] == ["the answer has the endpoint's key in it, so it is not kept"]
    assert cost.completion_tokens == 10
    assert not [file for file in spill_files(spill) if key in file.read_text()]


def test_a_key_at_the_edge_of_what_is_shown_is_cut_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "sk-c4n4ry-at-the-edge"
    monkeypatch.setenv("MY_KEY", key)
    with endpoint(lambda *_: Say(400, b"x" * 290 + b" " + key.encode())) as server:
        made, _ = ask(server.url, ["a"], api_key_env="MY_KEY")
    assert "sk-c4" not in made["tag_error"][0]


@pytest.mark.parametrize("key", ["sk-two\nlines-c4n4ry", "sk-a space-c4n4ry", "sk-ключ-c4n4ry", "sk-\x00-c4n4ry"])
def test_a_key_that_no_header_can_carry_is_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\x00" not in key:
        monkeypatch.setenv("MY_KEY", key)
    else:
        monkeypatch.setenv("MY_KEY", key.replace("\x00", "\x01"))
    with endpoint(lambda *_: completion(GOOD)) as server:
        made, _ = ask(server.url, ["a"], api_key_env="MY_KEY")
    assert server.requests == 0
    assert made["tag_error"][0].startswith(f"{NOT_ASKED}refused: the key in MY_KEY has a space, a line break")
    assert "c4n4ry" not in str(made)


def test_https_goes_through_the_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            client, _ = listening.accept()
            with client:
                asked.append(client.recv(4096))
                client.sendall(b"HTTP/1.1 403 no\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        made, _ = ask("https://model.invalid/v1", ["a"], timeout=5, max_tries=1)
        thread.join()
    assert asked[0].startswith(b"CONNECT model.invalid:443 HTTP/1.1\r\n")
    assert "403" in made["tag_error"][0]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate by openssl")
def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    made_by = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]  # fmt: skip
    subprocess.run(made_by, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with endpoint(lambda *_: completion(GOOD), tls=context) as server:
        made, _ = ask(server.url, ["a"], max_tries=1)
        assert "CERTIFICATE_VERIFY_FAILED" in made["tag_error"][0]
        monkeypatch.setenv("SSL_CERT_FILE", cert)
        made, _ = ask(server.url, ["a", "b"], concurrency=1)
    assert made["labels"] == [["a"], ["a"]]
