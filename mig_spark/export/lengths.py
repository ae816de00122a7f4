"""What a tokenizer makes of a record: whether its chat template renders it, and how long it is."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mig_spark.errors import DependencyError, InputError
from mig_spark.export.format import LineFormat, Message

_HINT = "install the embed extra: pip install 'mig-spark[embed]'"


@dataclass(frozen=True)
class Lengths:
    """Holds records against a tokenizer; an instance is a `convert.Further`.

    Attributes:
        tokenizer: a folder that `save_pretrained` has written, or a tokenizer.json; on every node that converts rows.
        max_tokens: tokens that a conversation of a record may have; None: only its chat template is tried.
    """

    tokenizer: str
    max_tokens: int | None = None

    def __call__(self, form: LineFormat, record: dict[str, Any]) -> list[str]:
        """What is wrong with a record, in words."""
        loaded = _loaded(self.tokenizer)
        from jinja2 import TemplateError

        for messages, tools in form.dialogues(record):
            try:
                size = _size(loaded, messages, tools, record.get("chat_template_kwargs") or {})
            # what a template raises itself, and what it does with values that it did not expect
            except (TemplateError, TypeError, ValueError, KeyError, IndexError, AttributeError) as e:
                return [f"the chat template refuses it: {' '.join(str(e).split())[:200]}"]
            if self.max_tokens is not None and size > self.max_tokens:
                return [f"{size:,} tokens, more than {self.max_tokens:,}"]
        return []

    def check(self) -> None:
        """See that there is such a tokenizer here.

        Raises:
            InputError: there is none, or it cannot be read.
            DependencyError: transformers is not installed.
        """
        _loaded(self.tokenizer)


@lru_cache(maxsize=2)
def _loaded(path: str) -> Any:
    where = Path(path).expanduser()
    if not where.exists():
        raise InputError(f"--tokenizer {path}: nothing there: give a folder with a tokenizer, or a tokenizer.json")
    if importlib.util.find_spec("transformers") is None:
        raise DependencyError(f"transformers cannot be imported, so the tokenizer cannot be loaded: {_HINT}")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        if where.is_file():
            return PreTrainedTokenizerFast(tokenizer_file=str(where))
        return AutoTokenizer.from_pretrained(str(where), local_files_only=True)
    # the libraries raise plain Exception for files that they do not understand
    except Exception as e:
        raise InputError(
            f"--tokenizer {path} is no tokenizer that transformers can load ({' '.join(str(e).split())[:200]})"
        ) from e


def _size(tokenizer: Any, messages: list[Message], tools: Any, settings: dict[str, Any]) -> int:
    """Tokens of a conversation: rendered, where the tokenizer has a chat template; else of its texts alone."""
    if tokenizer.chat_template is None:
        texts = [m["content"] for m in messages if isinstance(m["content"], str) and m["content"]]
        return sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else 0
    text = tokenizer.apply_chat_template(messages, tools=tools or None, tokenize=False, **settings)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])
