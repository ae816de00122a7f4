"""Tokens of a row's text by a tokenizer that travels to executors as text, so that no node needs its files.

tokenizers (and transformers, for chat templates) are imported when a tokenizer is built, never before.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mig_spark.errors import DependencyError, InputError
from mig_spark.kernels.annotation.models import quiet
from mig_spark.kernels.ingest.rejects import encodable

HINT = "install the embed extra: pip install 'mig-spark[embed]'"
#: Changes with what is counted, so that counts of older rules are made anew.
TOKEN_RULE = 1
#: Characters that are tokenized at a time, about: an encoding takes some 100 bytes a token.
_CHARS = 1 << 20
#: Templates that print today's date get this one, so that a row has the same number of tokens every day.
_FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
_PROBE = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer"}]


@dataclass(frozen=True)
class Tokenizer:
    """A tokenizer, as plain values.

    Attributes:
        name: what people call it.
        content: the text of its `tokenizer.json`.
        template: its chat template (Jinja); None where it has none.
        special: the tokens that a template may name, such as `bos_token`.
    """

    name: str
    content: str = field(repr=False)
    template: str | None = field(default=None, repr=False)
    special: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __hash__(self) -> int:
        return hash(self.version)

    @cached_property
    def version(self) -> str:
        """Its name, and a hash of all that can change a count."""
        parts = [TOKEN_RULE, self.content, self.template, dict(self.special)]
        return f"{self.name}@{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}"

    def check(self) -> None:
        """See that it can be built here, and that its chat template renders a question and an answer.

        Raises:
            DependencyError: a library is not installed.
            InputError: the content is no tokenizer, or the template cannot be rendered.
        """
        needed = ["tokenizers"] if self.template is None else ["tokenizers", "transformers", "jinja2"]
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            raise DependencyError(f"{' and '.join(missing)} cannot be imported, so tokens cannot be counted: {HINT}")
        try:
            built = _built(self)
        # the library raises plain Exception for every file that it does not understand
        except Exception as e:
            raise InputError(f"{self.name} is not a tokenizer: tokenizers cannot read its tokenizer.json ({e})") from e
        if built.chat is not None and (failure := built.render_or_why(_PROBE)[1]):
            raise InputError(f"the chat template of {self.name} cannot render a question and its answer ({failure})")


def count_tokens(messages: pa.ListArray, tokenizer: Tokenizer) -> pa.Array:
    """Tokens of each row.

    Without a chat template: of the contents of all turns, each by itself, without special tokens and role headers. With
    one: of the rendered dialogue, headers and special tokens of the template included; a tool call, which the view
    writes as text, counts as what the assistant says.

    Args:
        messages: lists of (role, content), n rows.
        tokenizer: from `Tokenizer`; built once a process.

    Returns:
        int64 (n,); null where the template refuses the row, for example roles that it does not know.
    """
    built = _built(tokenizer)
    if built.chat is None:
        lengths = pc.fill_null(pc.list_value_length(messages), 0).to_numpy(zero_copy_only=False)
        texts = pc.struct_field(messages.flatten(), "content").to_pylist()
        row = np.repeat(np.arange(len(messages)), lengths)
        counts = np.zeros(len(messages), np.int64)
        np.add.at(counts, row, built.lengths([text or "" for text in texts]))
        return pa.array(counts)
    rendered = [built.render_or_why(as_chat(row or ()))[0] for row in messages.to_pylist()]
    counts = built.lengths([text or "" for text in rendered])
    return pa.array(counts, mask=np.array([text is None for text in rendered], bool))


def measure(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], tools: Any, settings: Mapping[str, Any]
) -> tuple[int | None, str]:
    """Tokens of one conversation with all that its messages have: rendered, where there is a chat template; else of the
    contents that are texts, each by itself.

    Args:
        tokenizer: from `Tokenizer`; built once a process.
        messages: in OpenAI's form.
        tools: the tools that the template is given; None: none.
        settings: what it is given beside them, by name (`chat_template_kwargs`).

    Returns:
        The number; or None, and why there is none: the template refuses the conversation, or a text is not Unicode.
    """
    built = _built(tokenizer)
    if built.chat is None:
        texts = [content for message in messages if isinstance(content := message.get("content"), str)]
    else:
        text, why = built.render_or_why(messages, tools, settings)
        if text is None:
            return None, f"the chat template refuses it: {why}"
        texts = [text]
    if not all(map(encodable, texts)):
        return None, "a text has half of a character pair"
    return int(built.lengths(texts).sum()), ""


def as_chat(turns: Sequence[Mapping[str, str | None]]) -> list[dict[str, str]]:
    """A row's turns as chat templates take them: a tool call is what the assistant says, together with the words that
    stand before it.

    >>> as_chat([{"role": "assistant", "content": "Let me look."}, {"role": "function_call", "content": "find(1)"}])
    [{'role': 'assistant', 'content': 'Let me look.\\nfind(1)'}]
    """
    chat: list[dict[str, str]] = []
    for turn in turns:
        role, content = turn["role"] or "", turn["content"] or ""
        if role == "function_call":
            role = "assistant"
            if chat and chat[-1]["role"] == role:
                chat[-1]["content"] += f"\n{content}"
                continue
        chat.append({"role": role, "content": content})
    return chat


@dataclass(frozen=True)
class _Built:
    """A tokenizer in this process; `chat` renders templates, None where there is none."""

    plain: Any
    chat: Any

    def lengths(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Tokens of each text; int64."""
        found: list[int] = []
        for part in _in_parts(texts):
            found += [len(e) for e in self.plain.encode_batch_fast(part, add_special_tokens=False)]
        return np.array(found, np.int64)

    def render_or_why(
        self, chat: Sequence[Mapping[str, Any]], tools: Any = None, settings: Mapping[str, Any] | None = None
    ) -> tuple[str | None, str]:
        """The dialogue as the template writes it, see `measure`; or None, and why not."""
        from jinja2 import TemplateError

        if not chat:
            return None, "there is no turn"
        try:
            given = {"tools": tools or None, "tokenize": False}
            return str(self.chat.apply_chat_template(list(chat), **given, **(settings or {}))), ""
        # what a template does with values that it did not expect
        except (
            TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
            RecursionError,
        ) as e:
            return None, f"{type(e).__name__}: {' '.join(str(e).split())[:200]}"


def _in_parts(texts: Sequence[str]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for text in texts:
        if part and size + len(text) > _CHARS:
            yield part
            part, size = [], 0
        part.append(text)
        size += len(text)
    if part:
        yield part


@lru_cache(maxsize=4)
def _built(tokenizer: Tokenizer) -> _Built:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from tokenizers import Tokenizer as Plain

    plain = Plain.from_str(tokenizer.content)
    # files of embedding models cut texts at the model's window and pad them
    plain.no_truncation()
    plain.no_padding()
    if tokenizer.template is None:
        return _Built(plain, None)
    with quiet():
        from transformers import PreTrainedTokenizerFast

        chat = PreTrainedTokenizerFast(tokenizer_object=plain, **tokenizer.special)
        chat.chat_template = _FIXED_DATE + tokenizer.template
    return _Built(plain, chat)
