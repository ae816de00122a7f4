"""Secrets, masked wherever a config is shown or stored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "•••"

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_SECRET_WORDS = {"secret", "secrets", "password", "passwd", "pwd", "passphrase", "token", "credential", "credentials",
                 "authorization", "bearer", "apikey", "key", "sas"}  # fmt: skip
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY_SECRET = re.compile(r"(?i)([?&](?:sig|signature|token|key|api_?key|password|x-amz-[a-z-]+)=)[^&\s]+")


def mask_secrets(value: Any, *, key: str = "") -> Any:
    """The same value, nested as it was, with a mask where a key names a secret or a URL carries one.

    Numbers stay: `max_tokens` and the like are limits, not secrets.

    Args:
        value: a config, or a part of one.
        key: the dotted key that `value` stands under.
    """
    if isinstance(value, Mapping):
        return {k: mask_secrets(v, key=f"{key}.{k}" if key else str(k)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_secrets(v, key=key) for v in value]
    if not isinstance(value, str) or not value:
        return value
    words = [w.lower() for w in _WORD.findall(key)]
    # `api_key_env` names the environment variable and `api_key_secret.key` an entry of a scope: neither is the secret
    named = words[-1:] in (["env"], ["scope"], ["name"], ["file"]) or key.endswith("api_key_secret.key")
    if _SECRET_WORDS.intersection(words) and not named:
        return MASK
    return _QUERY_SECRET.sub(rf"\1{MASK}", _USERINFO.sub(f"{MASK}@", value))
