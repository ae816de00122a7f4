"""Keep secrets out of what people read: in errors, records of runs, logs and stored answers, every secret that this
process has read is replaced by `MASK`.

Code that reads a secret (from the environment, a secret scope or the config) calls `remember_secret` once. The errors
of this package and the log of the command line then scrub themselves.
"""

from __future__ import annotations

import logging
import re
import urllib.parse
from collections.abc import Mapping

from mig_spark.masking import MASK, mask_secrets

#: shorter ones ("EMPTY", "token") are stand-ins for servers that need no key, and cannot be told from words
_SHORTEST = 8
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PIECE = re.compile(r"[A-Za-z0-9]+")
_KEY = re.compile(r"[!-~]+")

_known: set[str] = set()


def remember_secret(value: str | None) -> None:
    """Have `scrub` replace this value in every text from now on. Values of fewer than 8 characters are left alone: they
    cannot be told from ordinary words."""
    if value and len(value) >= _SHORTEST:
        # as it is, and as it stands in a URL or in JSON
        _known.update({value, urllib.parse.quote(value, safe=""), value.replace("\\", "\\\\").replace('"', '\\"')})


def remember_settings(settings: Mapping[str, str]) -> None:
    """Remember the values of settings whose names say that they are secrets.

    Args:
        settings: values by name, such as the settings of a Spark session.
    """
    for name, value in settings.items():
        if mask_secrets(value, key=name) == MASK and not name.lower().endswith(
            ("provider", "type", "class", "enabled")
        ):
            remember_secret(value)


def holds_secret(text: str) -> bool:
    """Whether a text contains a remembered secret."""
    return any(value in text for value in _known)


def scrub(text: str) -> str:
    """A text with `MASK` in place of remembered secrets, and of passwords and signatures in URLs."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    shown = mask_secrets(text)
    return shown if isinstance(shown, str) else text


class Scrubbed(logging.Formatter):
    """A formatter for logging that scrubs whole records, stack traces included."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted record, scrubbed."""
        return scrub(super().format(record))


def is_variable_name(name: str) -> bool:
    """Whether a text can be the name of an environment variable.

    False for a key that was written in place of the name: it has other characters than letters, digits and `_`, or it
    looks like a key (`looks_like_key`).
    """
    return _NAME.fullmatch(name) is not None and not looks_like_key(name)


def looks_like_key(text: str) -> bool:
    """Whether a text looks like a key: 16 letters and digits in one piece, two digits or more among them."""
    return any(
        len(piece) >= 16 and sum(c.isdigit() for c in piece) >= 2 and not piece.isdigit()
        for piece in _PIECE.findall(text)
    )


def is_sendable_key(key: str) -> bool:
    """Whether a key can stand in a header: printable ASCII, without spaces and line breaks."""
    return _KEY.fullmatch(key) is not None
