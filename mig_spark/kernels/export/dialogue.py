"""A record as trainers see it: messages with all their keys, tools, second answers, and whatever else it brings.

The pool's view (role, content) is for annotators and leaves much out; this is read from the record itself, with the
schema that ingest recognised. All ways to write a message become one, that of OpenAI's chat completions: `role`,
`content`, `tool_calls`, `tool_call_id`, `name`, and any other key as it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mig_spark.kernels.export.messages import Message, as_messages, features_of, parsed
from mig_spark.kernels.ingest.chat import DECODER
from mig_spark.kernels.ingest.extras import extras_of, left_out_of, with_system
from mig_spark.kernels.ingest.forms import (
    KTO,
    PREFERENCE,
    PROMPT,
    SFT,
    Reading,
    kind_of,
    read,
    recognise,
    shared_text,
    spoken_turns,
)
from mig_spark.kernels.ingest.names import Names, answer_of, first_of
from mig_spark.kernels.ingest.rejects import CONTENT_NOT_TEXT, BadRecord, show
from mig_spark.kernels.ingest.turns import (
    CALLS,
    REASONING,
    Turn,
    is_conversation,
    is_message,
    read_messages,
)

#: Keys of a record by what they are to a trainer; every other key that may matter to one goes along as it stands.
MEDIA = frozenset(("image", "images", "video", "videos", "audio", "audios", "files"))
_CALLS = frozenset(CALLS)
TEMPLATE = frozenset(("chat_template_kwargs", "enable_thinking", "reasoning_effort", "model_identity"))
WEIGHTS = frozenset(("weight", "loss_mask", "train_on_turn"))
#: What `reasoning` says where it is a setting and no text, as in Llama-Nemotron's set.
_SWITCHES = frozenset(("on", "off", "yes", "no", "true", "false", "none", "low", "medium", "high"))


@dataclass
class Dialogue:
    """One record.

    Attributes:
        kind: what it is for, one of `contracts.KINDS`.
        messages: the conversation; of a preference pair the prompt alone; of a stepwise row the question.
        prompt: number of messages that are the prompt, where the record tells prompt and answer apart; None where it
            is one conversation.
        chosen: the better answer of a preference pair, and `rejected` the worse one.
        label: KTO's verdict.
        steps: the steps of a stepwise row, and `verdicts`, one for each.
        tools: the tools, as a list where they can be read as one, else as they stand; None where there are none.
        further: what else of the record a trainer may read, by its own keys.
        odd: what of the record has no place in a conversation, in words; empty almost always.
        left_out: keys of the record that are metadata, see `extras.left_out_of`.
    """

    kind: str
    messages: list[Message] = field(default_factory=list)
    prompt: int | None = None
    chosen: list[Message] = field(default_factory=list)
    rejected: list[Message] = field(default_factory=list)
    label: bool | None = None
    steps: list[str] = field(default_factory=list)
    verdicts: list[bool] = field(default_factory=list)
    tools: Any = None
    further: dict[str, Any] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def split(self) -> tuple[list[Message], list[Message]]:
        """Prompt and answer: where the record tells them apart, else before the last turn."""
        size = len(self.messages) - 1 if self.prompt is None else self.prompt
        return self.messages[:size], self.messages[size:]

    def all_messages(self) -> Iterator[Message]:
        """Every message, of both answers too."""
        yield from self.messages
        yield from self.chosen
        yield from self.rejected

    def features(self) -> dict[str, str]:
        """What the record has beyond user and assistant texts, each with the words for a message about it."""
        found: dict[str, str] = {}
        if self.tools is not None:
            found["tools"] = "tools"
        if self.kind == SFT and self.prompt and any(m["role"] == "assistant" for m in self.messages[: self.prompt]):
            found["boundary"] = "answers in the prompt, which are not learned from"
        groups = (("media", MEDIA), ("unread calls", _CALLS), ("template", TEMPLATE), ("weights", WEIGHTS))
        for name, keys in groups:
            for key in sorted(keys & self.further.keys()):
                found.setdefault(name, f"`{key}`")
        first_answer = self._first_answer()
        for number, message in enumerate(self.all_messages()):
            learned = message["role"] == "assistant" and number >= first_answer
            for name, words in features_of(message, learned=learned):
                found.setdefault(name, f"{words} (turn {number + 1})")
        return found

    def _first_answer(self) -> int:
        """The place among `all_messages` from which on a trainer learns the assistant's turns."""
        if self.kind == SFT:
            return self.prompt or 0
        return len(self.split()[0]) if self.label is not None else len(self.messages)

    def notes(self) -> dict[str, Any]:
        """Keys of the record that are no part of the conversation and that a trainer may read (`names.TRAINER_KEYS`):
        references, tests, margins. They go along; every other key is in `left_out`."""
        read_apart = MEDIA | TEMPLATE | WEIGHTS | _CALLS
        return {key: value for key, value in self.further.items() if key not in read_apart}


def dialogue(raw: str, schema: str | None, names: Names) -> Dialogue:
    """Read a record of the pool.

    Args:
        raw: its JSON text.
        schema: as ingest recognised it; None: as it is recognised now.
        names: the keys that have a role.

    Raises:
        BadRecord: it cannot be read as that schema, or its second answer is no message.
    """
    record = DECODER.decode(raw.removeprefix("\ufeff"))
    schema = schema or recognise(record, names)
    reading = read(record, schema, names)
    turns = with_system(reading, record, names)
    further = {k: v for k, v in extras_of(record, reading, turns, names).items() if not k.startswith("@")}
    kind = kind_of(schema, reading)
    found = Dialogue(kind, label=reading.extras.get("@label"), left_out=left_out_of(record, reading, names))
    _READERS.get(schema, _one_conversation)(found, record, reading, names)
    _add_system(found, record, names)
    if kind == PREFERENCE:
        _take_prompt_beside(found, further, names)
    if "@system" in reading.extras:
        found.odd.append("a system prompt beside another one in the conversation")
    inside = reading.extras.get("@input")
    if isinstance(inside, dict) and schema == "openai_preference":
        further |= {k: v for k, v in inside.items() if k not in further}
    found.tools = _tools(further)
    found.further = further
    if kind in (SFT, KTO):
        _take_reasoning(found)
    if kind == PROMPT:
        found.prompt = None
    return found


def _tools(further: dict[str, Any]) -> Any:
    """The tools, taken out of `further`, as OpenAI has them: `{type: function, function: {name, ...}}`."""
    key = next((k for k in ("tools", "functions") if k in further), None)
    if key is None:
        return None
    value = further.pop(key)
    if isinstance(value, str):
        read_as = parsed(value)
        value = read_as if isinstance(read_as, list | dict) else value
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        if not value:
            return None
        flat = all(isinstance(t, dict) and isinstance(t.get("name"), str) and "function" not in t for t in value)
        if flat and all("type" not in t for t in value):
            value = [{"type": "function", "function": tool} for tool in value]
    return value


# --- how the messages of each schema are found


def _texts(turns: list[Turn]) -> list[Message]:
    """Turns of the view, where they are all of the record."""
    return [{"role": role, "content": content} for role, content in turns]


def _one_conversation(found: Dialogue, record: Mapping[str, Any], reading: Reading, names: Names) -> None:
    for keys in (names.messages, names.conversations, ("dialogs",)):
        key, value = first_of(record, keys)
        if key in reading.used and isinstance(value, list):
            found.messages = as_messages(value)
            return


def _pair(found: Dialogue, record: Mapping[str, Any], reading: Reading, names: Names) -> None:
    """A prompt and an answer, each a text, a message or messages."""
    key, prompt = first_of(record, names.prompt)
    if key in reading.used and is_conversation(prompt):
        found.messages = as_messages(prompt)
    answer_key, answer = answer_of(record, names)
    told = is_message(answer) or is_conversation(answer)
    if found.messages or told:
        asked = found.messages or _texts([turn for turn in reading.turns if turn[0] == "user"][:1])
        if told and answer_key in reading.used:
            answers = as_messages(answer)
        elif answer_key in reading.used and isinstance(answer, str):
            answers = [{"role": "assistant", "content": answer}]
        else:
            answers = []
        found.messages, found.prompt = [*asked, *answers], len(asked)
        return
    _from_view(found, record, reading, names)


def _from_view(found: Dialogue, _record: Mapping[str, Any], reading: Reading, _names: Names) -> None:
    """Texts alone: the view is all of it, and the last turn is the answer."""
    found.messages = _texts(reading.turns)
    # earlier answers, in the history of an alpaca record, are learned from too: that is a conversation
    if [m["role"] for m in found.messages].count("assistant") == 1 and found.messages[-1]["role"] == "assistant":
        found.prompt = len(found.messages) - 1


def _stepwise(found: Dialogue, record: Mapping[str, Any], reading: Reading, _names: Names) -> None:
    found.messages = _texts(reading.turns[:1])
    found.steps, found.verdicts = list(record["completions"]), list(record["labels"])


def _preference(found: Dialogue, record: Mapping[str, Any], reading: Reading, names: Names) -> None:
    (_, chosen), (_, rejected) = first_of(record, names.chosen), first_of(record, names.rejected)
    _two_answers(found, chosen, rejected, _prompt_of(record, reading, names))


def _openai_preference(found: Dialogue, record: Mapping[str, Any], _reading: Reading, _names: Names) -> None:
    rejected = record.get("non_preferred_output")
    _two_answers(found, record["preferred_output"], rejected, as_messages(record["input"]["messages"]))


def _prompt_of(record: Mapping[str, Any], reading: Reading, names: Names) -> list[Message] | None:
    """The prompt of a preference pair; None where the answers begin with it."""
    for keys in (names.conversations, names.messages, names.prompt):
        key, value = first_of(record, keys)
        if key in reading.used and is_conversation(value):
            return as_messages(value)
    key, _ = first_of(record, (*names.instruction, *names.prompt))
    if key not in reading.used:
        return None
    # texts: the view is all of the prompt, and its last turn the chosen answer
    _, chosen = first_of(record, names.chosen)
    answers = 1
    if not isinstance(chosen, str):
        answers = len(read_messages(chosen if isinstance(chosen, list) else [chosen])[0])
    return _texts(reading.turns[:-answers])


def _two_answers(found: Dialogue, chosen: Any, rejected: Any, prompt: list[Message] | None) -> None:
    if prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
        good, bad = spoken_turns(chosen), spoken_turns(rejected)
        if good and bad:
            chosen, rejected = _texts(good), _texts(bad)
        else:
            shared = shared_text(chosen, rejected)
            prompt = [{"role": "user", "content": shared}] if shared else []
            chosen, rejected = chosen[len(shared) :], rejected[len(shared) :]
    better, worse = _answer(chosen, "chosen"), _answer(rejected, "rejected")
    if prompt is None or _begins_with_user(better):
        size = _shared(better, worse)
        prompt, better, worse = better[:size], better[size:], worse[size:]
    elif len(better) < len(prompt) and prompt[-len(better) :] == better:
        prompt = prompt[: -len(better)]  # some sets have the chosen answer in the conversation already
    found.messages, found.chosen, found.rejected = prompt, better, worse
    found.prompt = len(prompt)


def _answer(value: Any, which: str) -> list[Message]:
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if not (is_message(value) or is_conversation(value)):
        raise BadRecord(CONTENT_NOT_TEXT, f"{which} is {show(value)}")
    return as_messages(value)


def _begins_with_user(messages: list[Message]) -> bool:
    return next((m["role"] for m in messages if m["role"] not in ("system", "developer")), "") == "user"


def _shared(better: list[Message], worse: list[Message]) -> int:
    """How many messages both answers begin with; each keeps one of its own."""
    most = min(len(better), len(worse)) - 1
    return next((k for k in range(max(most, 0)) if better[k] != worse[k]), max(most, 0))


def _add_system(found: Dialogue, record: Mapping[str, Any], names: Names) -> None:
    _, system = first_of(record, names.system)
    if isinstance(system, str) and system.strip() and not (found.messages and found.messages[0]["role"] == "system"):
        found.messages = [{"role": "system", "content": system}, *found.messages]
        if found.prompt is not None:
            found.prompt += 1


def _take_reasoning(found: Dialogue) -> None:
    """Move the reasoning of a whole record into its answer, where it has one answer: there it is learned, or formats
    without a place for it list the row."""
    answers = [m for m in found.messages if m["role"] == "assistant"]
    key = next((k for k in REASONING if _is_thought(found.further.get(k))), None)
    if key is None or len(answers) != 1 or answers[0] is not found.messages[-1] or answers[0].keys() & set(REASONING):
        return
    found.messages = [*found.messages[:-1], {**answers[0], "reasoning_content": found.further.pop(key)}]


def _is_thought(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and value.strip().lower() not in _SWITCHES


def _take_prompt_beside(found: Dialogue, further: dict[str, Any], names: Names) -> None:
    """Of a conversation that stands beside answers which begin with theirs: its system prompt, where the answers have
    none and the rest of it is what they begin with. Any other conversation there is one too many."""
    keys = (*names.conversations, *names.messages, *names.prompt)
    key = next((k for k in keys if is_conversation(further.get(k))), None)
    if key is None:
        return
    before, asked = _parted(as_messages(further[key]))
    own, mine = _parted(found.messages)
    if mine[: len(asked)] != asked or (before and own and before != own):
        found.odd.append(f"a conversation under `{key}` beside that of the answers")
        return
    del further[key]
    found.messages = [*(own or before), *mine]
    found.prompt = len(found.messages)


def _parted(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """The system prompt, as a list of one or none, and the turns after it."""
    size = int(bool(messages) and messages[0]["role"] in ("system", "developer"))
    return messages[:size], messages[size:]


_READERS = {
    "alpaca": _from_view,
    "pair": _from_view,
    "prompt_completion": _pair,
    "prompt_only": _pair,
    "kto": _pair,
    "stepwise": _stepwise,
    "preference": _preference,
    "alpaca_preference": _preference,
    "sharegpt_preference": _preference,
    "messages_preference": _preference,
    "openai_preference": _openai_preference,
}
