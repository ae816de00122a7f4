"""The forms in which records come: recognised by their keys, each with a reader of its own.

docs/formats.md has the table. A reader gives the view for annotation; what a trainer sees beside it goes to `extras`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mig_spark.kernels.ingest.names import VERIFIER_KEYS, Names, answer_of, first_of, is_empty
from mig_spark.kernels.ingest.rejects import (
    CONTENT_NOT_TEXT,
    EMPTY_CONTENT,
    NO_MESSAGES,
    NO_VERDICT,
    UNKNOWN_SCHEMA,
    BadRecord,
    show,
)
from mig_spark.kernels.ingest.turns import (
    Turn,
    compact,
    is_conversation,
    is_message,
    none_empty,
    read_history,
    read_messages,
)

SFT, PREFERENCE, KTO, PROMPT, STEPWISE = "sft", "preference", "kto", "prompt", "stepwise"
KINDS = (SFT, PREFERENCE, KTO, PROMPT, STEPWISE)

# where in `extras` a reader puts what has no key of its own, or a key that the config names
_FURTHER, _PROMPT_MESSAGES = "@messages", "@prompt_messages"
_CHOSEN, _REJECTED, _LABEL, _INPUT = "@chosen", "@rejected", "@label", "@input"


@dataclass
class Reading:
    """What a reader found.

    Attributes:
        turns: the view.
        used: the record's keys that the view, or `extras`, carries whole.
        extras: what a trainer sees and the view does not carry; its own keys begin with @.
        messages: number of messages read.
    """

    turns: list[Turn]
    used: set[str]
    extras: dict[str, Any] = field(default_factory=dict)
    messages: int = 0

    def add(self, items: list[Any]) -> None:
        """Read further messages."""
        turns, further = read_messages(items, self.messages)
        self.turns = self.turns + turns
        self.messages += len(items)
        if further:
            self.extras.setdefault(_FURTHER, []).extend(further)


#: Where a speaker's turn begins in a text of several turns.
_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ \n]?")

Reader = Callable[[Mapping[str, Any], Names], Reading]


def recognise(record: Mapping[str, Any], names: Names) -> str:
    """The schema of a record, or "" where none fits. Keys that hold nothing count only where no other key fits, and
    those that hold null only after these."""
    if _is_openai_preference(record):
        return "openai_preference"
    found = _recognise(_full_keys(record, names).__contains__, names)
    if not found and _has_answers(record, names):
        return "preference"
    found = found or _recognise(lambda key: record.get(key) is not None, names)
    return refine(found or _recognise(record.__contains__, names), record, names)


def _full_keys(record: Mapping[str, Any], names: Names) -> set[str]:
    """The keys that hold something. An empty instruction does where an input follows it: alpaca's prompt is both."""
    full = {key for key, value in record.items() if value or not is_empty(value)}
    if not full.isdisjoint(names.input):
        full.update(key for key in names.instruction if isinstance(record.get(key), str))
    return full


def refine(base: str, record: Mapping[str, Any], names: Names) -> str:
    """The schema of a record whose base form is known: with two answers, with messages in place of texts, ..."""
    if base in _WITH_ANSWERS and _has_answers(record, names):
        return _WITH_ANSWERS[base]
    if base != "pair":
        return base
    if _is_stepwise(record, names):
        return "stepwise"
    prompt, answer = first_of(record, names.prompt)[1], answer_of(record, names)[1]
    if answer is None:
        checked = any(not is_empty(record.get(key)) for key in VERIFIER_KEYS)
        return "prompt_only" if is_conversation(prompt) or (checked and prompt is not None) else base
    if kto_label(record, names) is not None:
        return "kto"
    return "prompt_completion" if is_conversation(prompt) or _is_said(answer) else base


def kto_label(record: Mapping[str, Any], names: Names) -> tuple[str, bool] | None:
    """Whether the answer of a KTO record is a wanted one, and the key that says so: (key, verdict), or None where the
    record has no verdict. It is a boolean under `kto_tag` or `label`, or 0 or 1 under `kto_tag`; a number under `label`
    is mostly a class of a data set for classification.

    Raises:
        BadRecord: `kto_tag` has another value.
    """
    for key in ("kto_tag", "label"):
        value = record.get(key)
        if value is None or key in names.aside or is_empty(value):
            continue
        if isinstance(value, bool):
            return key, value
        if key == "kto_tag":
            if not isinstance(value, int | float) or value not in (0, 1):
                raise BadRecord(NO_VERDICT, f"{key} is {show(value)}, neither true nor false")
            return key, bool(value)
    return None


def read(record: Mapping[str, Any], schema: str, names: Names) -> Reading:
    """Read a record by its schema.

    Raises:
        BadRecord: there is no such schema, or the record is not of that schema.
    """
    reader = READERS.get(schema)
    if reader is None:
        keys = ", ".join(sorted(map(show, record))[:12]) or "none"
        raise BadRecord(UNKNOWN_SCHEMA, f"{schema or 'no known schema'} among the keys {keys}")
    reading = reader(record, names)
    label = None if schema in _WITHOUT_LABEL else kto_label(record, names)
    if label is not None:
        reading.extras[_LABEL] = label[1]
        reading.used.add(label[0])
    return reading


def kind_of(schema: str, reading: Reading) -> str:
    """What a row is for: one of `KINDS`."""
    if schema in _OTHER_KINDS:
        return _OTHER_KINDS[schema]
    if _LABEL in reading.extras:
        return KTO
    return SFT if any(role in ("assistant", "function_call") for role, _ in reading.turns) else PROMPT


def _recognise(has: Callable[[str], bool], names: Names) -> str:
    configured = names.configured
    if "messages" in configured and any(map(has, names.messages)):
        return "messages"
    if "prompt" in configured and any(map(has, names.prompt)):
        return "alpaca" if names.prompt == ("instruction",) else "pair"
    if has("dialogs"):
        return "mig"
    if any(map(has, names.messages)):
        return "messages"
    if any(map(has, names.conversations)):
        return "sharegpt"
    if any(map(has, names.instruction)):
        return "alpaca"
    return "pair" if any(map(has, names.prompt)) else ""


def _is_said(value: Any) -> bool:
    return is_message(value) or is_conversation(value)


def _has_answers(record: Mapping[str, Any], names: Names) -> bool:
    for keys in (names.chosen, names.rejected):
        answer = first_of(record, keys)[1]
        if not isinstance(answer, str) and not _is_said(answer):
            return False
    return True


def _is_openai_preference(record: Mapping[str, Any]) -> bool:
    inside, better = record.get("input"), record.get("preferred_output")
    return isinstance(inside, dict) and is_conversation(inside.get("messages")) and is_conversation(better)


def _is_stepwise(record: Mapping[str, Any], names: Names) -> bool:
    steps, labels = record.get("completions"), record.get("labels")
    if not isinstance(steps, list) or not isinstance(labels, list) or not steps or len(steps) != len(labels):
        return False
    text = isinstance(first_of(record, names.prompt)[1], str)
    return text and all(isinstance(s, str) for s in steps) and all(isinstance(v, bool) for v in labels)


def _alpaca_prompt(record: Mapping[str, Any], names: Names) -> Reading:
    key, prompt = _text(record, names.instruction, required=True)
    reading = Reading(read_history(record.get("history")), {key, "history"})
    extra = _context(record, names.input, reading)
    reading.turns.append(("user", "\n".join(t for t in (prompt, extra) if t.strip())))
    return reading


def _alpaca(record: Mapping[str, Any], names: Names) -> Reading:
    reading = _alpaca_prompt(record, names)
    key, answer = _text(record, names.output, required=True)
    reading.used.add(key)
    reading.turns = none_empty([*reading.turns, ("assistant", answer)])
    return reading


def _prompt(record: Mapping[str, Any], names: Names) -> Reading:
    """A prompt: a text, a conversation, or an `input` of any other form, whose JSON text is shown."""
    key, value = first_of(record, names.prompt)
    reading = Reading([], {key})
    if is_conversation(value):
        reading.add(value)
    elif key == "input" and isinstance(value, list | dict) and value:
        reading.turns, reading.extras[_INPUT] = [("user", compact(value))], value
    else:
        key, prompt = _text(record, names.prompt, required=True)
        keys = names.input
        if "input" not in names.configured:
            # `input` is also a common name of the prompt
            keys = tuple(k for k in keys if k != key and _is_beside(prompt, record.get(k)))
        extra = _context(record, keys, reading)
        user = "\n".join(t for t in (prompt, extra) if t.strip()) if extra else prompt
        reading.turns = none_empty([("user", user)])
    return reading


def _pair(record: Mapping[str, Any], names: Names) -> Reading:
    reading = _prompt(record, names)
    key, _ = answer_of(record, names)
    key, answer = _text(record, (key,) if key else names.response, required=True)
    reading.used.add(key)
    reading.turns += none_empty([("assistant", answer)])
    return reading


def _prompt_completion(record: Mapping[str, Any], names: Names) -> Reading:
    key, value = answer_of(record, names)
    reading = _prompt(record, names)
    prompted, before = reading.messages, len(reading.turns)
    if _is_said(value):
        reading.add(value if isinstance(value, list) else [value])
        reading.used.add(key)
    else:
        reading = _pair(record, names)
    asked, told = reading.turns[:before], reading.turns[before:]
    if any(role in ("assistant", "function_call") for role, _ in asked) or any(role != "assistant" for role, _ in told):
        # which turns are learned from: in a conversation without this boundary, all answers are
        reading.extras[_PROMPT_MESSAGES] = prompted
    return reading


def _kto(record: Mapping[str, Any], names: Names) -> Reading:
    if kto_label(record, names) is None:
        raise BadRecord(UNKNOWN_SCHEMA, "no boolean 'label' or 'kto_tag'")
    return _prompt_completion(record, names)


def _stepwise(record: Mapping[str, Any], names: Names) -> Reading:
    if not _is_stepwise(record, names):
        raise BadRecord(UNKNOWN_SCHEMA, "no prompt with 'completions' and as many booleans in 'labels'")
    key, prompt = _text(record, names.prompt, required=True)
    steps = record["completions"]
    turns = none_empty([("user", prompt), ("assistant", "\n".join(steps))])
    return Reading(turns, {key, "completions", "labels"}, {"@steps": steps, "@labels": record["labels"]})


def _conversation(keys: Callable[[Names], tuple[str, ...]]) -> Reader:
    def reader(record: Mapping[str, Any], names: Names) -> Reading:
        key, value = first_of(record, keys(names))
        if value is None and not any(k in record for k in keys(names)):
            raise BadRecord(UNKNOWN_SCHEMA, f"no {' or '.join(map(show, keys(names)))}")
        if not isinstance(value, list) or not value:
            shown = "empty" if value == [] else show(value)
            raise BadRecord(NO_MESSAGES, f"{key or keys(names)[0]} is {shown}")
        reading = Reading([], {key})
        reading.add(value)
        if not reading.turns:
            raise BadRecord(EMPTY_CONTENT, "nothing but an empty system turn")
        return reading

    return reader


def _preference(prompt: Reader) -> Reader:
    """A reader of a prompt with a chosen and a rejected answer; the view is the prompt and the chosen answer."""

    def reader(record: Mapping[str, Any], names: Names) -> Reading:
        (better, chosen), (worse, rejected) = first_of(record, names.chosen), first_of(record, names.rejected)
        if not _has_answers(record, names):
            raise BadRecord(UNKNOWN_SCHEMA, "no answers under 'chosen' and 'rejected', as texts or messages")
        answer = Reading([], set())
        if not isinstance(chosen, str):
            answer.add(chosen if isinstance(chosen, list) else [chosen])
        if _begins_with_user(answer.turns):
            reading = Reading(answer.turns, set())  # the prompt is part of the answers
        elif prompt is _prompt and first_of(record, names.prompt)[1] is None:
            reading = Reading(_implicit(chosen, rejected) if isinstance(chosen, str) else answer.turns, set())
        else:
            reading = prompt(record, names)
            turns = [("assistant", chosen)] if isinstance(chosen, str) else answer.turns
            if not turns:
                raise BadRecord(EMPTY_CONTENT, f"{better} has no answer")
            # some sets have the chosen answer in the conversation already
            reading.turns = reading.turns + (turns if reading.turns[-len(turns) :] != turns else [])
        none_empty(reading.turns)
        reading.used |= {better, worse}
        reading.extras |= {_CHOSEN: chosen, _REJECTED: rejected}
        return reading

    return reader


def _begins_with_user(turns: list[Turn]) -> bool:
    return next((role for role, _ in turns if role != "system"), "") == "user"


def _implicit(chosen: str, rejected: Any) -> list[Turn]:
    """A chosen text that begins with its prompt: the turns that it is written in, or what it has in common with the
    rejected one."""
    other = rejected if isinstance(rejected, str) else ""
    if (turns := spoken_turns(chosen)) and spoken_turns(other):
        return turns
    shared = shared_text(chosen, other)
    return [("user", shared), ("assistant", chosen[len(shared) :])] if shared else [("assistant", chosen)]


def spoken_turns(text: str) -> list[Turn]:
    """The turns of a text that has them after `Human:` and `Assistant:`, each at the beginning of a paragraph, as
    Anthropic's hh-rlhf; empty where it begins or ends otherwise."""
    before, *parts = _SPEAKER.split(text)
    names, texts = parts[::2], parts[1::2]
    if before or not names or names[0] != "Human" or names[-1] != "Assistant":
        return []
    return [("user" if name == "Human" else "assistant", said) for name, said in zip(names, texts, strict=True)]


def shared_text(chosen: str, rejected: str) -> str:
    """The prompt that two texts begin with: what they have in common up to its last line end, or where it has none its
    last space, so that no word is cut; empty where one of the two would be all of it."""
    size = next((k for k, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    shared = chosen[: min(len(chosen), len(rejected)) if size is None else size]
    end = shared.rfind("\n") + 1
    if not shared[:end].strip():
        end = max(shared.rfind(" "), 0)
    return shared[:end] if shared[:end].strip() and chosen[end:].strip() else ""


def _openai_preference(record: Mapping[str, Any], _names: Names) -> Reading:
    if not _is_openai_preference(record):
        raise BadRecord(UNKNOWN_SCHEMA, "no 'input' with messages and 'preferred_output'")
    inside = record["input"]
    reading = Reading([], {"input", "preferred_output", "non_preferred_output"})
    reading.add(inside["messages"])
    reading.add(record["preferred_output"])
    other = {k: v for k, v in inside.items() if k != "messages" and not is_empty(v)}
    reading.extras |= {
        _CHOSEN: record["preferred_output"],
        _REJECTED: record.get("non_preferred_output"),
        **({_INPUT: other} if other else {}),
    }
    return reading


_messages = _conversation(lambda names: names.messages)
_sharegpt = _conversation(lambda names: names.conversations)
_mig = _conversation(lambda names: names.messages if "messages" in names.configured else ("dialogs",))

READERS: dict[str, Reader] = {
    "alpaca": _alpaca,
    "pair": _pair,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "mig": _mig,
    "prompt_completion": _prompt_completion,
    "prompt_only": _prompt,
    "preference": _preference(_prompt),
    "alpaca_preference": _preference(_alpaca_prompt),
    "sharegpt_preference": _preference(_sharegpt),
    "messages_preference": _preference(_messages),
    "openai_preference": _openai_preference,
    "kto": _kto,
    "stepwise": _stepwise,
    # for callers that need only labels and scores: any record is accepted
    "annotation": lambda _record, _names: Reading([], set()),
}
#: What `pool.schema` may be, `auto` aside.
SCHEMAS = tuple(name for name in READERS if name != "annotation")
_WITH_ANSWERS = {
    "alpaca": "alpaca_preference",
    "pair": "preference",
    "sharegpt": "sharegpt_preference",
    "messages": "messages_preference",
}
_OTHER_KINDS = {
    **dict.fromkeys((name for name in READERS if name.endswith("preference")), PREFERENCE),
    "stepwise": STEPWISE,
}
_WITHOUT_LABEL = frozenset((*_OTHER_KINDS, "annotation"))


def _text(record: Mapping[str, Any], keys: tuple[str, ...], *, required: bool) -> tuple[str, str]:
    key, value = first_of(record, keys)
    if value is None:
        if required and not any(k in record for k in keys):
            raise BadRecord(EMPTY_CONTENT, f"no {' or '.join(map(show, keys))}")
        return key, ""
    if not isinstance(value, str):
        raise BadRecord(CONTENT_NOT_TEXT, f"{key} is {show(value)}")
    return key, value


def _context(record: Mapping[str, Any], keys: tuple[str, ...], reading: Reading) -> str:
    """The text of what follows the instruction; of an `input` that is a list or an object, its JSON text."""
    key, value = first_of(record, keys)
    reading.used.add(key)
    if isinstance(value, list | dict) and value:
        reading.extras[_INPUT] = value
        return compact(value)
    return "" if is_empty(value) else _text(record, keys, required=False)[1]


def _is_beside(prompt: str, value: Any) -> bool:
    """Whether a value adds something to a prompt that it stands beside: it is no number, and no text that the prompt
    has already."""
    return value.strip() not in prompt if isinstance(value, str) else isinstance(value, list | dict)
