"""A tagger and a judge behind an OpenAI-compatible chat endpoint, asked from executors.

Nothing that goes wrong at the endpoint fails a task: a row without an answer comes back with the reason, and what was
answered is kept. A reason that begins with `NOT_ASKED` means that the row was not tried, or not for a fault of its own.
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

from mig_spark.kernels.annotation.http_post import Poster, ProxyError, RateLimit, Reply, backoff
from mig_spark.kernels.annotation.prompts import (
    conversation,
    estimate_tokens,
    judge_prompt,
    read_labels,
    read_scores,
    tag_prompt,
)
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
    import httpx2

NOT_ASKED = "not asked: "
#: why a task stopped asking; each is the word after `NOT_ASKED`
CAP, FATAL, BREAKER, UNKNOWN = "spend cap", "refused", "too many failures", "spent without a record"
TRUNCATED = "truncated"
OUTSIDE = "label_outside"
UNPARSABLE = "unparsable answer: "
_FIRST_WAIT = 1.0
_SHOWN = 200
#: a server that says it has used more tokens for one answer is not believed
_MOST_TOKENS = 10**9

Settings: TypeAlias = Mapping[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Secret:
    """A value that nothing prints: it goes from the driver to the tasks, and from there into a request's header."""

    value: str = field(repr=False)


@dataclass
class Task:
    """One task attempt: what it may spend, where its answers go, and who asks for it, by kernel.

    Attributes:
        spill: the folder of this chunk's answers; None: they are written nowhere before the task ends.
        earlier: folders of runs that died, whose answers are as good.
        aside: the folder for answers of such runs that cannot be used; those in `gone` have been put there before.
        tasks: tasks that ask at the same time, which share the rate.
        secrets: keys that the driver has looked up, by (scope, key) of `api_key_secret`.
        partition: the task's number, the same in each of its attempts.
        attempt: how many attempts of it there were before.
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
        """The one who asks under these settings."""
        if not self.askers:
            self._take_over()
        name = json.dumps(settings, sort_keys=True)
        if name not in self.askers:
            self.askers[name] = Asker(settings, self)
        return self.askers[name]

    @property
    def spent_unknown(self) -> bool:
        """Whether an attempt before this one may have spent what is written nowhere, and there is a cap."""
        return self.attempt > 0 and self.spill is None and self.budget.capped

    def put_aside(self, keys: Sequence[str]) -> None:
        """Keep answers of runs that died and that cannot be used for a look; no later run reads them again."""
        useless = [key for key in keys if key in self.left_over]
        if useless and self.aside is not None:
            aside = Spill(self.aside, task_name(self.partition))
            for key in useless:
                aside.add(self.left_over[key])
            aside.close()

    def _take_over(self) -> None:
        """Read what has been paid for, and count what earlier attempts of this task have spent."""
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
    """The words of a model, or why there are none; `cut` where it ran out of tokens. `key` stands for the request."""

    key: str
    text: str | None = None
    error: str | None = None
    cut: bool = False


class Asker:
    """Asks one endpoint for one task: a few requests at a time, one rate, one breaker."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self._settings, self._task = settings, task
        rate = settings["requests_per_second"]
        self._rate = RateLimit(rate / (task.tasks or settings["tasks"]) if rate else None)
        self._stop_reason, self._stopped = "", asyncio.Event()
        self._streak: list[Answer] = []
        self._spill = Spill(task.spill, task_name(task.partition)) if task.spill else None
        said = (settings[name] for name in ("auth_header", "timeout", "max_response_bytes"))
        self._poster = Poster(settings["url"], self._key(), *said)
        if task.spent_unknown:
            self._stop(UNKNOWN, "a try of this task died, and what it had spent is written nowhere")

    def _key(self) -> str | None:
        """The key, fit for a header; without it nothing is asked."""
        name, secret = self._settings["api_key_env"], self._settings["api_key_secret"]
        if not name and not secret:
            return None
        key = (os.environ.get(name, "") if name else self._task.secrets[secret].value).strip()
        remember_secret(key)
        if not key:
            self._stop(FATAL, f"{name} is not set in the executors' environment: set it before Spark starts")
        elif is_sendable_key(key):
            return key
        else:
            self._stop(FATAL, f"the key in {name or secret} has a space, a line break or a sign beyond ASCII inside")
        return None

    async def ask_all(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Ask for each body, equal ones once; answers in their order."""
        keys = [request_key(self._settings["url"], body) for body in bodies]
        waiting = iter(dict(zip(keys, bodies, strict=True)).items())
        answers: dict[str, Answer] = {}
        # an event belongs to the loop that waits for it
        self._stopped = asyncio.Event()
        if self._stop_reason:
            self._stopped.set()
        try:
            async with self._poster.connections() as connections:
                workers = [self._work(connections, waiting, answers) for _ in range(self._settings["concurrency"])]
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
        self, connections: httpx2.AsyncHTTPTransport, waiting: Iterator[tuple[str, bytes]], answers: dict[str, Answer]
    ) -> None:
        try:
            for key, body in waiting:
                answers[key] = await self._ask(connections, key, body)
        except BaseException:
            # an answer could not be written through: no further request may go out
            self._stopped.set()
            raise

    async def _ask(self, connections: httpx2.AsyncHTTPTransport, key: str, body: bytes) -> Answer:
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
            reply = await self._poster.post(connections, body)
            answer = self._take(key, reply, tokens)
            if answer is not None:
                return answer
            if reply.data is not None:
                reply = Reply(error="the server said 200 without any choices", transient=True)
            if reply.fatal:
                self._stop(FATAL, str(reply.error))
                return Answer(key, error=self._stop_reason)
            if not reply.transient:
                break
            if reply.wait:
                self._rate.close_for(reply.wait)
            elif tries < self._settings["max_tries"] and reply.wait is None:
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
        """Wait, but not once the task has stopped asking."""
        if seconds > 0:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), seconds)

    def _take(self, key: str, reply: Reply, reserved: int) -> Answer | None:
        """The answer in a reply, paid and written through; None where there is none."""
        text, cut, prompt, completion = _content(reply)
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


def request_key(url: str, body: bytes) -> str:
    """What stands for a request wherever its answer is kept."""
    return hashlib.sha256(url.encode() + b"\0" + body).hexdigest()


def request_body(settings: Settings, system: str, user: str) -> bytes:
    """The request, the same bytes for the same row; a null in the config's `body` leaves a key out."""
    body = {
        "model": settings["model"],
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
        "max_tokens": settings["max_output_tokens"],
        "temperature": 0,
        "response_format": {"type": "json_object"},
        **settings["body"],
    }
    return json.dumps({k: v for k, v in body.items() if v is not None}, sort_keys=True, ensure_ascii=False).encode()


def endpoint_labels(batch: pa.RecordBatch, *, settings: Settings, task: Task) -> dict[str, pa.Array]:
    """Labels of `messages`; flags `truncated`, and `label_outside` where a label was not on the list that was given."""
    vocabulary = settings["vocabulary"]
    listed = None if vocabulary is None else {label.casefold(): label for label in vocabulary}
    prompt = tag_prompt(settings["top"], vocabulary, settings["language"])
    answers, cuts = _ask_rows(batch, prompt, settings, task)
    labels: list[list[str] | None] = []
    flags, errors = [], []
    for answer, cut in zip(answers, cuts, strict=True):
        found = _read(answer, lambda text: read_labels(text, settings["top"]))
        kept = found
        if found is not None and listed is not None:
            kept = list(dict.fromkeys(listed[name.casefold()] for name in found if name.casefold() in listed))
        labels.append(kept)
        flags.append([TRUNCATED] * cut + [OUTSIDE] * (len(kept or ()) < len(found or ())))
        errors.append(_why(answer, parsed=found is not None))
    task.put_aside([a.key for a, error in zip(answers, errors, strict=True) if a.text is not None and error])
    strings = pa.list_(pa.string())
    made = {"labels": pa.array(labels, strings), "tag_flags": pa.array(flags, strings)}
    return {**made, "tag_error": pa.array(errors, pa.string())}


def endpoint_scores(batch: pa.RecordBatch, *, settings: Settings, task: Task) -> dict[str, pa.Array]:
    """Quality, complexity (1 to 6 each) and their product, by a rubric; the flag `truncated`."""
    answers, cuts = _ask_rows(batch, judge_prompt(), settings, task)
    found = [_read(answer, read_scores) for answer in answers]
    columns = {
        "quality": [None if f is None else f[0] for f in found],
        "complexity": [None if f is None else f[1] for f in found],
        "score": [None if f is None else f[0] * f[1] for f in found],
    }
    errors = [_why(a, parsed=f is not None) for a, f in zip(answers, found, strict=True)]
    task.put_aside([a.key for a, error in zip(answers, errors, strict=True) if a.text is not None and error])
    return {
        **{name: pa.array(values, pa.float64()) for name, values in columns.items()},
        "score_flags": pa.array([[TRUNCATED] * cut for cut in cuts], pa.list_(pa.string())),
        "score_error": pa.array(errors, pa.string()),
    }


def row_tokens(kernel: str, settings: Settings, messages: Sequence[Mapping[str, str | None]]) -> int:
    """About how many tokens the request for a row has."""
    system = judge_prompt()
    if kernel == "endpoint_labels":
        system = tag_prompt(settings["top"], settings["vocabulary"], settings["language"])
    return estimate_tokens(system) + estimate_tokens(conversation(messages, settings["max_chars"])[0])


def _ask_rows(batch: pa.RecordBatch, system: str, settings: Settings, task: Task) -> tuple[list[Answer], list[bool]]:
    seen = [conversation(messages, settings["max_chars"]) for messages in batch.column("messages").to_pylist()]
    bodies = [request_body(settings, system, text) for text, _ in seen]
    return asyncio.run(task.asker(settings).ask_all(bodies)), [cut for _, cut in seen]


def _read(answer: Answer, read: Callable[[str], _T | None]) -> _T | None:
    """What an answer says; None where there is none or it cannot be read, for whatever reason: an answer that raised
    here would be paid, written through, and raise in every run to come."""
    if answer.text is None:
        return None
    try:
        return read(answer.text)
    except Exception:  # noqa: BLE001 - total on purpose, see above
        return None


def _why(answer: Answer, *, parsed: bool) -> str | None:
    if answer.text is None or parsed:
        return answer.error
    SPENT.unparsable += 1
    cut = "cut at max_output_tokens, " if answer.cut else ""
    return f"{UNPARSABLE}{cut}{answer.text[:_SHOWN]!r}"


def _content(reply: Reply) -> tuple[str | None, bool, int, int]:
    """(text, whether it was cut short, tokens in, tokens out); no text where the reply is no completion."""
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
    """Tokens that a server says it has counted; 0 where that is no count."""
    counted = isinstance(said, (int, float)) and not isinstance(said, bool) and 0 <= said <= _MOST_TOKENS
    return int(said) if counted else 0
