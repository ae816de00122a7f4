"""The keys of a record: which one has which role, and which of them a trainer reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Names:
    """For each role that a column can have, the keys under which it is looked for, best first."""

    id: tuple[str, ...] = ("id", "_id")
    source: str = "source"
    instruction: tuple[str, ...] = ("instruction",)
    output: tuple[str, ...] = ("output", "response", "completion", "answer")
    prompt: tuple[str, ...] = ("prompt", "question", "query", "problem", "input")
    response: tuple[str, ...] = ("completion", "response", "answer", "output", "solution")
    input: tuple[str, ...] = ("input", "context")
    system: tuple[str, ...] = ("system", "system_prompt")
    messages: tuple[str, ...] = ("messages",)
    conversations: tuple[str, ...] = ("conversations", "conversation")
    chosen: tuple[str, ...] = ("chosen",)
    rejected: tuple[str, ...] = ("rejected",)
    labels: str = "labels"
    score: str = "score"
    quality: str = "quality"
    complexity: str = "complexity"
    configured: frozenset[str] = field(default_factory=frozenset)

    @property
    def aside(self) -> frozenset[str]:
        """Keys that say what a row is, not what is trained on."""
        return frozenset((*self.id, self.source, self.labels, self.score, self.quality, self.complexity))


def column_names(columns: Mapping[str, str]) -> Names:
    """The default names, replaced where `pool.columns` says so. An empty name means that no column has this role."""
    names = Names(configured=frozenset(columns))
    for role, name in columns.items():
        keys = (name,) if name else ()
        if role == "prompt":
            names = replace(names, prompt=keys, instruction=keys)
        elif role == "response":
            names = replace(names, response=keys, output=keys)
        elif role == "messages":
            names = replace(names, messages=keys, conversations=keys)
        elif role in ("id", "input", "system", "chosen", "rejected"):
            names = replace(names, **{role: keys})  # type: ignore[arg-type]
        else:
            names = replace(names, **{role: name})  # type: ignore[arg-type]
    return names


DEFAULT_NAMES = column_names({})

#: The keys that hold the dialogue, in any form.
DIALOGUE_KEYS = frozenset(
    (
        "messages", "conversations", "conversation", "dialogs", "instruction", "prompt", "question", "query", "problem",
        "input", "context", "output", "response", "completion", "completions", "answer", "solution", "system",
        "system_prompt", "history", "documents",
    )
)  # fmt: skip
#: The keys of a record that trainers, verifiers and chat templates read, beside those that its schema is made of. Every
#: other key is metadata: it is exported as it stands, and rows that differ in nothing else are equal.
TRAINER_KEYS = DIALOGUE_KEYS | frozenset(
    (
        # preferences
        "chosen", "rejected", "preferred_output", "non_preferred_output", "kto_tag", "margin",
        # tools
        "tools", "functions", "tool_calls", "function_call", "function_calls", "tool_choice", "parallel_tool_calls",
        "response_format",
        # what is not text
        "image", "images", "video", "videos", "audio", "audios", "files",
        # reasoning, and what chat templates take beside the messages
        "reasoning", "reasoning_content", "thinking", "thought", "enable_thinking", "reasoning_effort",
        "chat_template_kwargs", "model_identity",
        # what is learned from which turn
        "weight", "loss_mask", "train_on_turn",
        # what answers are held against
        "ground_truth", "reference", "reference_answer", "references", "expected_answer", "expected_output", "gold",
        "target", "targets", "reward_model", "verification_info", "verifier", "constraint", "constraint_type",
        "test_cases", "tests", "unit_tests", "rubric", "rubrics",
    )
)  # fmt: skip
#: Keys with what an answer is held against, so that a prompt beside one of them needs no answer of its own.
VERIFIER_KEYS = (
    "ground_truth", "reward_model", "verification_info", "verifier", "expected_answer", "expected_output",
    "reference_answer", "test_cases", "tests", "unit_tests", "rubric", "rubrics", "constraint",
)  # fmt: skip


def first_of(record: Mapping[str, Any], keys: Iterable[str]) -> tuple[str, Any]:
    """The first of the keys whose value says something, with it; where none does, the first that is not null;
    ("", None) where there is none."""
    silent: tuple[str, Any] = ("", None)
    for key in keys:
        value = record.get(key)
        if value is None:
            continue
        if value or not is_empty(value):
            return key, value
        if not silent[0]:
            silent = (key, value)
    return silent


def answer_of(record: Mapping[str, Any], names: Names) -> tuple[str, Any]:
    """The key and value of a pair's answer. Beside a `problem` a text under `solution` is what is learned, and `answer`
    its last line or its number alone, as in sets of mathematics."""
    key, value = first_of(record, names.response)
    if key == "answer" and "solution" in names.response and first_of(record, names.prompt)[0] == "problem":
        solution = record.get("solution")
        if isinstance(value, str) and isinstance(solution, str) and solution.strip():
            return "solution", solution
    return key, value


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, or an empty text, list or object, as tables fill in where a key is absent."""
    return value is None or (isinstance(value, str | list | dict) and not value)
