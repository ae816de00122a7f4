"""A tagger and a judge behind an OpenAI-compatible chat endpoint, asked from executors.

Nothing that goes wrong at the endpoint fails a task: a row without an answer comes back with the reason, and what was
answered is kept. A reason that begins with `NOT_ASKED` means that the row was not tried, or not for a fault of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa

from mig_spark.kernels.annotation.http_post import Poster, RateLimit, Reply, backoff
from mig_spark.kernels.annotation.prompts import (
    conversation,
    estimate_tokens,
    judge_prompt,
    read_labels,
    read_scores,
    tag_prompt,
)
from mig_spark.kernels.annotation.spill import Spill, read_spill

NOT_ASKED = "not asked: "
#: why a task stopped asking; each is the word after `NOT_ASKED`
CAP, FATAL, BREAKER = "spend cap", "refused", "too many failures"
TRUNCATED = "truncated"
OUTSIDE = "label_outside"
UNPARSABLE = "unparsable answer: "
_FIRST_WAIT = 1.0
_SHOWN = 200

Settings: TypeAlias = Mapping[str, Any]


@dataclass
class Spent:
    """What this process has spent so far. `reused`: answers that an earlier attempt had paid for."""

    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    reused: int = 0
    unparsable: int = 0

    def copy(self) -> Spent:
        """As it is now."""
        return Spent(**vars(self))


SPENT = Spent()


@dataclass(frozen=True)
class Secret:
    """A value that nothing prints: it goes from the driver to the tasks, and from there into a request's header."""

    value: str = field(repr=False)


@dataclass
class Budget:
    """What a task may still spend; None: without limit. Not safe for threads by itself."""

    requests: int | None = None
    tokens: int | None = None

    def reserve(self, tokens: int) -> bool:
        """Set a request and its likely tokens aside, where both are left."""
        if (self.requests is not None and self.requests < 1) or (self.tokens is not None and self.tokens < tokens):
            return False
        if self.requests is not None:
            self.requests -= 1
        self.give_back(-tokens)
        return True

    def give_back(self, tokens: int) -> None:
        """Correct what was set aside by what was used."""
        if self.tokens is not None:
            self.tokens += tokens


@dataclass
class Task:
    """One task attempt: what it may spend, where its answers go, and who asks for it, by kernel.

    Attributes:
        spill: the folder of this chunk's answers; None: they are written nowhere before the task ends.
        earlier: folders of runs that died, whose answers are as good.
        tasks: tasks that ask at the same time, which share the rate.
        secrets: keys that the driver has looked up, by (scope, key) of `api_key_secret`.
    """

    budget: Budget = field(default_factory=Budget)
    spill: str | None = None
    earlier: Sequence[str] = ()
    tasks: int | None = None
    secrets: Mapping[tuple[str, str], Secret] = field(default_factory=dict)
    askers: dict[str, Asker] = field(default_factory=dict)

    def asker(self, settings: Settings) -> Asker:
        """The one who asks under these settings."""
        name = json.dumps(settings, sort_keys=True)
        if name not in self.askers:
            self.askers[name] = Asker(settings, self)
        return self.askers[name]


@dataclass
class Answer:
    """The words of a model, or why there are none; `cut` where it ran out of tokens."""

    text: str | None = None
    error: str | None = None
    cut: bool = False


class Asker:
    """Asks one endpoint for one task: a few threads, one rate, one breaker."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self._settings, self._task, self._lock = settings, task, threading.Lock()
        rate = settings["requests_per_second"]
        self._rate = RateLimit(rate / (task.tasks or settings["tasks"]) if rate else None)
        self._stopped, self._stop_reason = threading.Event(), ""
        self._streak: list[Answer] = []
        key = None
        if settings["api_key_env"]:
            key = os.environ.get(settings["api_key_env"], "").strip()
            if not key:
                name = settings["api_key_env"]
                self._stop(FATAL, f"{name} is not set in the executors' environment: set it before Spark starts")
        elif settings["api_key_secret"]:
            key = task.secrets[settings["api_key_secret"]].value
        self._poster = Poster(settings["url"], key, settings["auth_header"], settings["timeout"])
        self._spill = Spill(task.spill, f"{os.getpid()}") if task.spill else None
        self._known = read_spill([*task.earlier, *([task.spill] if task.spill else ())])

    def ask_all(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Ask for each body, equal ones once; answers in their order."""
        keys = [request_key(self._settings["url"], body) for body in bodies]
        different = dict(zip(keys, bodies, strict=True))
        pool = ThreadPoolExecutor(self._settings["concurrency"], thread_name_prefix="ask")
        try:
            asked = {key: pool.submit(self._ask, key, body) for key, body in different.items()}
            answers = {key: future.result() for key, future in asked.items()}
        except BaseException:
            # an answer could not be written through, or the task is being stopped: no further request may go out
            self._stopped.set()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            if self._spill is not None:
                self._spill.close()
        return [answers[key] for key in keys]

    def _ask(self, key: str, body: bytes) -> Answer:
        known = self._known.get(key)
        if known is not None:
            with self._lock:
                SPENT.reused += 1
            return Answer(known["text"], cut=known["cut"])
        tokens = estimate_tokens(body.decode()) + self._settings["max_output_tokens"]
        reply = Reply(error="")
        for tries in range(1, self._settings["max_tries"] + 1):
            if not self._may_ask(tokens, again=tries > 1):
                return Answer(error=self._stop_reason)
            reply = self._poster.post(body)
            answer = self._take(key, reply, tokens)
            if answer is not None:
                return answer
            if reply.data is not None:
                reply = Reply(error="the server said 200 without any choices", transient=True)
            if reply.fatal:
                self._stop(FATAL, str(reply.error))
                return Answer(error=self._stop_reason)
            if not reply.transient:
                break
            if reply.wait:
                self._rate.close_for(reply.wait)
            elif tries < self._settings["max_tries"] and reply.wait is None:
                self._stopped.wait(backoff(tries, base=_FIRST_WAIT, longest=self._settings["max_wait"]))
        return self._give_up(Answer(error=str(reply.error)))

    def _may_ask(self, tokens: int, *, again: bool) -> bool:
        self._stopped.wait(0.0 if self._stopped.is_set() else self._rate.take())
        with self._lock:
            if self._stopped.is_set():
                return False
            if self._task.budget.reserve(tokens):
                SPENT.requests += 1
                SPENT.retries += again
                return True
        self._stop(CAP, "what the run may spend is spent")
        return False

    def _take(self, key: str, reply: Reply, reserved: int) -> Answer | None:
        """The answer in a reply, written through and paid; None where there is none."""
        text, cut, prompt, completion = _content(reply)
        with self._lock:
            if text is None:
                self._task.budget.give_back(reserved)
                return None
            if prompt + completion == 0:
                # a server that counts nothing: count as estimated
                completion = min(reserved, estimate_tokens(text))
                prompt = reserved - self._settings["max_output_tokens"]
            self._task.budget.give_back(reserved - prompt - completion)
            SPENT.prompt_tokens += prompt
            SPENT.completion_tokens += completion
            self._streak.clear()
        if self._spill is not None:
            self._spill.add({"key": key, "text": text, "cut": cut})
        return Answer(text, cut=cut)

    def _give_up(self, answer: Answer) -> Answer:
        with self._lock:
            self._streak.append(answer)
            opened = len(self._streak) >= self._settings["breaker"]
            if opened:
                self._stop(BREAKER, f"{len(self._streak)} rows in a row got no answer, the last: {answer.error}")
                # an outage is no fault of these rows: it is not held against them
                for failed in self._streak:
                    failed.error = self._stop_reason
        return answer

    def _stop(self, code: str, reason: str) -> None:
        if not self._stopped.is_set():
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
        found = None if answer.text is None else read_labels(answer.text, settings["top"])
        kept = found
        if found is not None and listed is not None:
            kept = list(dict.fromkeys(listed[name.casefold()] for name in found if name.casefold() in listed))
        labels.append(kept)
        flags.append([TRUNCATED] * cut + [OUTSIDE] * (len(kept or ()) < len(found or ())))
        errors.append(_why(answer, parsed=found is not None))
    strings = pa.list_(pa.string())
    made = {"labels": pa.array(labels, strings), "tag_flags": pa.array(flags, strings)}
    return {**made, "tag_error": pa.array(errors, pa.string())}


def endpoint_scores(batch: pa.RecordBatch, *, settings: Settings, task: Task) -> dict[str, pa.Array]:
    """Quality, complexity (1 to 6 each) and their product, by a rubric; the flag `truncated`."""
    answers, cuts = _ask_rows(batch, judge_prompt(), settings, task)
    found = [None if a.text is None else read_scores(a.text) for a in answers]
    columns = {
        "quality": [None if f is None else f[0] for f in found],
        "complexity": [None if f is None else f[1] for f in found],
        "score": [None if f is None else f[0] * f[1] for f in found],
    }
    errors = [_why(a, parsed=f is not None) for a, f in zip(answers, found, strict=True)]
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
    return task.asker(settings).ask_all(bodies), [cut for _, cut in seen]


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
    tokens = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (int(n) if isinstance(n, (int, float)) and n >= 0 else 0 for n in tokens)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        return None, False, 0, 0
    message = choices[0].get("message")
    text = message.get("content") if isinstance(message, Mapping) else None
    # a refusal has no content: it was paid, and asking again would be too
    return text if isinstance(text, str) else "", choices[0].get("finish_reason") == "length", prompt, completion
