"""What a tokenizer makes of a record: whether its chat template renders it, and how long it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mig_spark.annotation.tokens import read_tokenizer
from mig_spark.export.format import LineFormat
from mig_spark.kernels.annotation.tokens import Tokenizer, measure


@dataclass(frozen=True)
class Lengths:
    """Holds records against a tokenizer; an instance is a `convert.Further`.

    Attributes:
        tokenizer: travels to executors as text.
        max_tokens: tokens that a conversation of a record may have; None: only its chat template is tried.
    """

    tokenizer: Tokenizer
    max_tokens: int | None = None

    def __call__(self, form: LineFormat, record: dict[str, Any]) -> list[str]:
        """What is wrong with a record in which the format finds nothing wrong, in words."""
        for messages, tools in form.dialogues(record):
            size, why = measure(self.tokenizer, messages, tools, record.get("chat_template_kwargs") or {})
            if size is None:
                return [why]
            if self.max_tokens is not None and size > self.max_tokens:
                return [f"{size:,} tokens, more than {self.max_tokens:,}"]
        return []


def lengths_of(path: str, max_tokens: int | None = None) -> Lengths:
    """The lengths by the tokenizer at a path, read and tried.

    Raises:
        InputError: there is none, or it cannot be used.
        DependencyError: a library is not installed.
    """
    tokenizer = read_tokenizer(None, path, told=f"--tokenizer {path}")
    tokenizer.check()
    return Lengths(tokenizer, max_tokens)
