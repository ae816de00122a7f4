"""Mask secrets wherever a config is shown or stored for people.

A masked config is for reading only, since a masked value cannot be used. Before a stored config is used again,
`masked_keys` lists what it lacks, and `with_secrets` puts it back from a config that has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "•••"

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_SECRET_WORDS = {"secret", "secrets", "password", "passwd", "pwd", "passphrase", "token", "credential", "credentials",
                 "authorization", "bearer", "apikey", "key", "sas"}  # fmt: skip
#: `user:password@` before a host, and on the web a name alone, which is a token there. `container@account` of a storage
#: (abfss, wasbs, viewfs) is a place and no secret.
_USERINFO = re.compile(r"(?<=://)[^/:@\s]*:[^/\s]*@")
_WEB_USER = re.compile(r"(?i)(?<=http://)[^/\s]+@|(?<=https://)[^/\s]+@")
#: Names of an address's parameters that carry a key or a signature.
CREDENTIALS_IN_QUERY = (
    r"(?:[\w.-]*[_-])?(?:(?:api|access|account|subscription)?key|token|secret|password|passwd|pwd|sig|signature|auth|"
    r"authorization|credentials?|sas)|x-amz-[a-z-]+"
)
_QUERY_SECRET = re.compile(rf"(?i)([?&](?:{CREDENTIALS_IN_QUERY})=)[^&\s]+")
#: The same in addresses of Spark Connect.
_PARAMETER_SECRET = re.compile(rf"(?i)(;(?:{CREDENTIALS_IN_QUERY})=)[^;\s]+")


def mask_secrets(value: Any, *, key: str = "") -> Any:
    """A copy of a config with `MASK` in place of every secret: values whose key names a secret, and passwords, keys and
    signatures inside URLs.

    Numbers are kept, since `max_tokens` and the like are limits.

    Args:
        value: a config, or a part of one.
        key: the dotted key of `value` in the whole config.

    >>> mask_secrets({"api_key": "abc", "url": "https://me:pw@host/x", "max_tokens": 9})
    {'api_key': '•••', 'url': 'https://•••@host/x', 'max_tokens': 9}
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
    if value.startswith("sc://"):
        value = _PARAMETER_SECRET.sub(rf"\1{MASK}", value)
    return _QUERY_SECRET.sub(rf"\1{MASK}", _WEB_USER.sub(f"{MASK}@", _USERINFO.sub(f"{MASK}@", value)))


def masked_keys(value: Any, *, key: str = "") -> list[str]:
    """The dotted keys of a config whose values are masked.

    Args:
        value: a config, or a part of one.
        key: the dotted key of `value` in the whole config.

    >>> masked_keys({"a": {"token": "•••"}, "b": 1})
    ['a.token']
    """
    if isinstance(value, Mapping):
        return [k for name, v in value.items() for k in masked_keys(v, key=f"{key}.{name}" if key else str(name))]
    if isinstance(value, (list, tuple)):
        return list(dict.fromkeys(k for v in value for k in masked_keys(v, key=key)))
    return [key] if isinstance(value, str) and MASK in value else []


def with_secrets(masked: Any, own: Any, *, key: str = "") -> Any:
    """A stored config with its masked secrets taken from another config.

    A value is taken only where masking it gives exactly the stored value: the secret of one address is never put into
    another.

    Args:
        masked: a config, or a part of one, as it was stored.
        own: the same part of a config that has the secrets.
        key: the dotted key of both in the whole config.

    >>> with_secrets({"token": "•••", "n": 1}, {"token": "abc", "n": 2})
    {'token': 'abc', 'n': 1}
    """
    if masked == mask_secrets(own, key=key):
        return own
    if isinstance(masked, Mapping) and isinstance(own, Mapping):
        return {k: with_secrets(v, own.get(k), key=f"{key}.{k}" if key else str(k)) for k, v in masked.items()}
    return masked
