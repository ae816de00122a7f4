"""Asking an OpenAI-compatible chat endpoint about rows, from executors: rate, retries, spend caps, paid answers written
through.

Nothing that goes wrong at the endpoint fails a task: a row without an answer comes back with the reason, and answers
are kept. A reason that begins with `NOT_ASKED` says that the row was not tried, or failed with all others in an outage;
it does not count as one of the row's attempts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pyarrow as pa

from mig_spark.kernels.annotation.http_post import OF_ONE_ROW, Poster, ProxyError, RateLimit, Reply, backoff
from mig_spark.kernels.annotation.prompts import conversation, estimate_tokens
from mig_spark.kernels.annotation.spend import SPENT, Budget
from mig_spark.kernels.annotation.spill import (
    Record,
    Spill,
    answer_line,
    asked_line,
    nothing_line,
    read_spent,
    read_spill,
    task_name,
)
from mig_spark.scrub import holds_secret, is_sendable_key, remember_secret

if TYPE_CHECKING:
    import ssl

    import httpx2

NOT_ASKED = "not asked: "
#: why a task stopped asking; each is the word after `NOT_ASKED`
CAP, FATAL, BREAKER, UNKNOWN = "spend cap", "refused", "too many failures", "spent without a record"
UNPARSABLE = "unparsable answer: "
_FIRST_WAIT = 1.0
# for an answer to `look_at_endpoint`
_LOOK_SECONDS = 10.0
# models of a server that are named
_NAMED = 5
_SHOWN = 200
#: a server that says it has used more tokens for one answer is not believed
_MOST_TOKENS = 10**9

Settings: TypeAlias = Mapping[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ask:
    """What a step asks an endpoint.

    Attributes:
        settings: of the config, see `EndpointConfig.settings`.
        system: the system message; the row's text is the user's.
        likely_tokens: what an answer usually has, for `annotate --dry-run`.
    """

    settings: Settings
    system: str
    likely_tokens: int

    def row_tokens(self, messages: Sequence[Mapping[str, str | None]]) -> int:
        """About how many tokens the request for a row has."""
        return estimate_tokens(self.system) + estimate_tokens(conversation(messages, self.settings["max_chars"])[0])

    def most_tokens(self) -> int:
        """About how many tokens the longest request and its answer set aside, in any script."""
        body = request_body(self.settings, self.system, "")
        most = estimate_tokens(body.decode()) + self.settings["max_chars"] + self.settings["max_output_tokens"]
        return int(most)


@dataclass(frozen=True)
class Secret:
    """A secret, which `repr` does not show: it travels from the driver to the tasks, and from there into a header."""

    value: str = field(repr=False)


@dataclass
class Task:
    """One attempt of a Spark task: what it may spend, and where its answers are written.

    Attributes:
        budget: what this attempt may still spend.
        spill: the folder that answers of this chunk are written through to; None: they are lost if the task dies.
        earlier: folders of runs that died; their answers are used as if they had just come.
        aside: the folder for those of their answers that cannot be read; None: they are not kept.
        gone: folders of answers that were put aside before, which are not used again.
        tasks: tasks that ask at the same time and share the rate.
        secrets: keys that the driver has looked up, by (scope, key) of `api_key_secret`.
        partition: the task's number, the same in each of its attempts.
        attempt: 0 for the first attempt of the task, 1 for the second.
        askers: one for each set of settings.
        paid: answers in `spill`, by the key of the request.
        left_over: answers in `earlier`, by the key of the request.
    """

    budget: Budget = field(default_factory=Budget)
    spill: str | None = None
    earlier: Sequence[str] = ()
    aside: str | None = None
    gone: Sequence[str] = ()
    tasks: int | None = None
    secrets: Mapping[tuple[str, str], Secret] = field(default_factory=dict, repr=False)
    partition: int = 0
    attempt: int = 0
    askers: dict[str, Asker] = field(default_factory=dict)
    paid: dict[str, Record] = field(default_factory=dict, repr=False)
    left_over: dict[str, Record] = field(default_factory=dict, repr=False)

    def asker(self, settings: Settings) -> Asker:
        """What asks under these settings; the first call reads the answers that are there already."""
        if not self.askers:
            self._take_over()
        name = json.dumps(settings, sort_keys=True)
        if name not in self.askers:
            self.askers[name] = Asker(settings, self)
        return self.askers[name]

    @property
    def spent_unknown(self) -> bool:
        """Whether there is a spend cap and an earlier attempt may have spent something that was not recorded."""
        return self.attempt > 0 and self.spill is None and self.budget.capped

    def put_aside(self, keys: Sequence[str]) -> None:
        """Move answers of runs that died, and that cannot be read, to the folder `aside`: no later run uses them."""
        useless = [key for key in keys if key in self.left_over]
        if useless and self.aside is not None:
            aside = Spill(self.aside, task_name(self.partition))
            for key in useless:
                aside.add(self.left_over[key])
            aside.close()

    def _take_over(self) -> None:
        """Read the answers that are paid already, and count what earlier attempts of this task have spent."""
        self.left_over = read_spill(self.earlier, self.gone)
        if self.spill is not None:
            self.paid = read_spill([self.spill])
            spent = read_spent(self.spill, self.partition)
            self.budget.take(spent.requests, spent.prompt_tokens + spent.completion_tokens)
            SPENT.requests += spent.requests
            SPENT.prompt_tokens += spent.prompt_tokens
            SPENT.completion_tokens += spent.completion_tokens


@dataclass
class Answer:
    """What a model answered, or the error. `key` identifies the request; `cut`: the answer ran out of tokens."""

    key: str
    text: str | None = None
    error: str | None = None
    cut: bool = False


class Asker:
    """Asks one endpoint for one task, some requests at a time, with one rate limit and one circuit breaker."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self._settings, self._task = settings, task
        rate = settings["requests_per_second"]
        self._rate = RateLimit(rate / (task.tasks or settings["tasks"]) if rate else None)
        self._stop_reason, self._stopped = "", asyncio.Event()
        self._streak: list[Answer] = []
        self._has_answered = False
        self._spill = Spill(task.spill, task_name(task.partition)) if task.spill else None
        said = (settings[name] for name in ("auth_header", "timeout", "max_response_bytes"))
        self._poster = Poster(settings["url"], self._key(), *said)
        if task.spent_unknown:
            self._stop(UNKNOWN, "a try of this task died, and what it had spent is written nowhere")

    def _key(self) -> str | None:
        """The key; None where none is configured, and where it cannot be used, which stops the asking."""
        key, why = find_key(self._settings, self._task.secrets)
        if why is not None:
            self._stop(FATAL, why)
        return key

    async def ask_all(self, bodies: Sequence[bytes]) -> list[Answer]:
        """The answers to these request bodies, in order; equal bodies are asked once."""
        import httpx2

        keys = [request_key(self._settings["url"], body) for body in bodies]
        waiting = iter(dict(zip(keys, bodies, strict=True)).items())
        answers: dict[str, Answer] = {}
        # an event belongs to the loop that waits for it
        self._stopped = asyncio.Event()
        if self._stop_reason:
            self._stopped.set()
        try:
            tls = httpx2.create_ssl_context()
            workers = [self._work(tls, waiting, answers) for _ in range(self._settings["concurrency"])]
            for done in await asyncio.gather(*workers, return_exceptions=True):
                if isinstance(done, BaseException):
                    raise done
        except ProxyError as e:
            self._stop(FATAL, str(e))
        finally:
            if self._spill is not None:
                self._spill.close()
        return [answers.get(key) or Answer(key, error=self._stop_reason) for key in keys]

    async def _work(
        self, tls: ssl.SSLContext, waiting: Iterator[tuple[str, bytes]], answers: dict[str, Answer]
    ) -> None:
        try:
            async with self._poster.connection(tls) as connection:
                for key, body in waiting:
                    answers[key] = await self._ask(connection, key, body)
        except BaseException:
            # an answer could not be written through: no further request may go out
            self._stopped.set()
            raise

    async def _ask(self, connection: httpx2.AsyncHTTPTransport, key: str, body: bytes) -> Answer:
        known = self._task.paid.get(key) or self._task.left_over.get(key)
        if known is not None:
            SPENT.reused += 1
            return Answer(key, known["text"], cut=known["cut"])
        tokens = estimate_tokens(body.decode()) + self._settings["max_output_tokens"]
        reply = Reply(error="")
        for tries in range(1, self._settings["max_tries"] + 1):
            if not await self._may_ask(tokens, again=tries > 1):
                return Answer(key, error=self._stop_reason)
            self._write(asked_line(key, tokens))
            reply = await self._poster.send(connection, body)
            answer = self._take(key, reply, tokens)
            if answer is not None:
                return answer
            if reply.data is not None:
                reply = Reply(error="the server said 200 without any choices", transient=True)
            if reply.fatal and not (self._has_answered and reply.status in OF_ONE_ROW):
                self._stop(FATAL, str(reply.error))
                return Answer(key, error=self._stop_reason)
            if not reply.transient:
                # the server answers, and says what is wrong with this row
                return Answer(key, error=str(reply.error))
            if reply.wait:
                self._rate.close_for(reply.wait)
            elif tries < self._settings["max_tries"]:
                await self._pause(backoff(tries, base=_FIRST_WAIT, longest=self._settings["max_wait"]))
        return self._give_up(Answer(key, error=str(reply.error)))

    async def _may_ask(self, tokens: int, *, again: bool) -> bool:
        if not self._stopped.is_set():
            await self._pause(self._rate.take())
        if self._stopped.is_set():
            return False
        if not self._task.budget.reserve(tokens):
            self._stop(CAP, "what the run may spend is spent")
            return False
        SPENT.requests += 1
        SPENT.retries += again
        return True

    async def _pause(self, seconds: float) -> None:
        """Sleep; wake up at once where the task stops asking."""
        if seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

    def _take(self, key: str, reply: Reply, reserved: int) -> Answer | None:
        """The answer in a reply: its tokens are counted and it is written through. None where the reply holds none;
        where the server may have worked for it all the same, the tokens set aside count."""
        text, cut, prompt, completion = _content(reply)
        if text is None and reply.may_cost:
            # what it cost nobody knows, so what was set aside counts; so does a line of a request without an end
            SPENT.prompt_tokens += reserved - self._settings["max_output_tokens"]
            SPENT.completion_tokens += self._settings["max_output_tokens"]
            return None
        if text is None:
            self._task.budget.give_back(reserved)
            self._write(nothing_line(key))
            return None
        if prompt + completion == 0:
            # a server that counts nothing: count as estimated
            completion = min(reserved, estimate_tokens(text))
            prompt = reserved - self._settings["max_output_tokens"]
        self._task.budget.give_back(reserved - prompt - completion)
        SPENT.prompt_tokens += prompt
        SPENT.completion_tokens += completion
        self._streak.clear()
        self._has_answered = True
        if holds_secret(text):
            # paid, but it may go nowhere
            self._write(answer_line(key, "", cut, prompt, completion))
            return Answer(key, error="the answer has the endpoint's key in it, so it is not kept")
        self._write(answer_line(key, text, cut, prompt, completion))
        return Answer(key, text, cut=cut)

    def _write(self, line: Record) -> None:
        if self._spill is not None:
            self._spill.add(line)

    def _give_up(self, answer: Answer) -> Answer:
        """A row whose tries are used up: too many in a row, and the task asks no more."""
        self._streak.append(answer)
        if len(self._streak) >= self._settings["breaker"]:
            self._stop(BREAKER, f"{len(self._streak)} rows in a row got no answer, the last: {answer.error}")
            # an outage is no fault of these rows: it is not held against them
            for failed in self._streak:
                failed.error = self._stop_reason
        return answer

    def _stop(self, code: str, reason: str) -> None:
        if not self._stop_reason:
            self._stop_reason = f"{NOT_ASKED}{code}: {reason}"
        self._stopped.set()


def find_key(settings: Settings, secrets: Mapping[tuple[str, str], Secret]) -> tuple[str | None, str | None]:
    """The key that requests are sent with, which from then on is cut out of all that is told; and why it cannot be
    used, where one is configured and cannot. One of the two is None; both are where no key is configured.

    Args:
        settings: of the config; `api_key_env` is looked up in this process.
        secrets: keys by (scope, key) of `api_key_secret`.
    """
    name, secret = settings["api_key_env"], settings["api_key_secret"]
    if not name and not secret:
        return None, None
    key = (os.environ.get(name, "") if name else secrets[secret].value).strip()
    remember_secret(key)
    if not key:
        return None, f"{name} is not set in the executors' environment: set it before Spark starts"
    if is_sendable_key(key):
        return key, None
    return None, f"the key in {name or secret} has a space, a line break or a sign beyond ASCII inside"


def look_at_endpoint(settings: Settings) -> tuple[bool | None, str]:
    """Ask an endpoint for the list of its models, which costs nothing.

    Args:
        settings: as for `Asker`. A key in a secret scope, which only tasks of a run are given, is not sent.

    Returns:
        Whether it answers and has the model; None where it answers, and the model is not on its list or there is no
        list. And what was found, in words.
    """
    import httpx2

    key, why = find_key({**settings, "api_key_secret": None}, {})
    if why is not None:
        return False, why
    base, _, query = settings["url"].partition("?")
    url = base.removesuffix("/chat/completions") + "/models" + (f"?{query}" if query else "")
    timeout = min(settings["timeout"], _LOOK_SECONDS)
    poster = Poster(url, key, settings["auth_header"], timeout, settings["max_response_bytes"])

    async def ask() -> Reply:
        async with poster.connection(httpx2.create_ssl_context()) as connection:
            return await poster.send(connection, None)

    try:
        reply = asyncio.run(ask())
    except ProxyError as e:
        return False, str(e)
    model = settings["model"]
    if reply.status in (401, 403) and settings["api_key_secret"]:
        return None, f"{url} answers, and wants a key; it is a secret of Databricks, which was not sent"
    if reply.status is None or reply.status in (401, 403):
        return False, f"{url}: {reply.error}"
    listed = (reply.data or {}).get("data")
    said = [item.get("id") for item in listed if isinstance(item, Mapping)] if isinstance(listed, list) else []
    names = [name for name in said if isinstance(name, str)]
    if model in names:
        return True, f"{url} answers, and has {model}"
    if names:
        more = ", ..." if len(names) > _NAMED else ""
        return None, f"{url} answers, and {model} is not among its models ({', '.join(names[:_NAMED])}{more})"
    return None, f"{url} answers, but lists no models, so whether it has {model} was not seen"


def request_key(url: str, body: bytes) -> str:
    """A hash that identifies a request, under which its answer is kept."""
    return hashlib.sha256(url.encode() + b"\0" + body).hexdigest()


def request_body(settings: Settings, system: str, user: str) -> bytes:
    """A request's body as JSON, always the same bytes for the same row; a null in the config's `body` drops a key."""
    body = {
        "model": settings["model"],
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "max_tokens": settings["max_output_tokens"],
        "temperature": 0,
        "response_format": {"type": "json_object"},
        **settings["body"],
    }
    return json.dumps({k: v for k, v in body.items() if v is not None}, sort_keys=True, ensure_ascii=False).encode()


def ask_rows(batch: pa.RecordBatch, ask: Ask, task: Task) -> tuple[list[Answer], list[bool]]:
    """Ask about every row of a batch (its column `messages`): the answers, and which rows were cut, in order."""
    seen = [conversation(messages, ask.settings["max_chars"]) for messages in batch.column("messages").to_pylist()]
    bodies = [request_body(ask.settings, ask.system, text) for text, _ in seen]
    return asyncio.run(task.asker(ask.settings).ask_all(bodies)), [cut for _, cut in seen]


def read_answer(answer: Answer, read: Callable[[str], _T | None]) -> _T | None:
    """What `read` makes of an answer; None where there is no answer, or `read` cannot read it or raises: the answer is
    written through already, so an error would come back in every later run."""
    if answer.text is None:
        return None
    try:
        return read(answer.text)
    except Exception:  # noqa: BLE001 - total on purpose, see above
        return None


def why_unread(answer: Answer, *, parsed: bool) -> str | None:
    """Why a row has no labels or scores: there was no answer, or it was not `parsed`; None where it was."""
    if answer.text is None or parsed:
        return answer.error
    SPENT.unparsable += 1
    cut = "cut at max_output_tokens, " if answer.cut else ""
    return f"{UNPARSABLE}{cut}{answer.text[:_SHOWN]!r}"


def _content(reply: Reply) -> tuple[str | None, bool, int, int]:
    """(text, whether it was cut short, tokens in, tokens out) of a reply; text is None where it is no completion."""
    data = reply.data or {}
    usage = data.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    prompt, completion = (_tokens(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        return None, False, 0, 0
    message = choices[0].get("message")
    text = message.get("content") if isinstance(message, Mapping) else None
    # a refusal has no content: it was paid, and asking again would be too
    return text if isinstance(text, str) else "", choices[0].get("finish_reason") == "length", prompt, completion


def _tokens(said: Any) -> int:
    """A server's count of tokens; 0 where what it says is no count."""
    counted = isinstance(said, (int, float)) and not isinstance(said, bool) and 0 <= said <= _MOST_TOKENS
    return int(said) if counted else 0
