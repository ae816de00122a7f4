"""Secrets that this process knows, cut out of every text on its way out: errors, records of runs, logs, answers.

Whoever reads a secret (a key from the environment, from a secret scope, from the config) tells it here once. Errors of
this package scrub themselves, and so does the command line's log.
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
    """Cut this value out of every text from now on."""
    if value and len(value) >= _SHORTEST:
        # as it is, and as it stands in a URL or in JSON
        _known.update({value, urllib.parse.quote(value, safe=""), value.replace("\\", "\\\\").replace('"', '\\"')})


def remember_settings(settings: Mapping[str, str]) -> None:
    """The same for the values of settings whose names say that they are secrets, as Spark's have them."""
    for name, value in settings.items():
        if mask_secrets(value, key=name) == MASK and not name.lower().endswith(
            ("provider", "type", "class", "enabled")
        ):
            remember_secret(value)


def holds_secret(text: str) -> bool:
    """Whether a secret that this process knows is in a text."""
    return any(value in text for value in _known)


def scrub(text: str) -> str:
    """A text without the secrets that this process knows, and without passwords and signatures in URLs."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    shown = mask_secrets(text)
    return shown if isinstance(shown, str) else text


class Scrubbed(logging.Formatter):
    """A log's formatter that scrubs whole lines, stack traces included."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return scrub(super().format(record))


def is_variable_name(name: str) -> bool:
    """Whether an environment variable can have this name; a key that stands in its place is told apart where it has
    other signs than letters, digits and `_`, or where it looks like one."""
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
