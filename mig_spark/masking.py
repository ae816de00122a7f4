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

#: A property that is set for a JVM among its options: `-Dname=value`, with quotes about all of it or about the value.
_PROPERTY = re.compile(
    r"""(?P<begin>(?P<quote>["'])-D(?P<name>[\w.-]+)=)(?P<value>(?:(?!(?P=quote)).)*)(?=(?P=quote))"""
    r"""|(?P<plain_begin>-D(?P<plain_name>[\w.-]+)=)(?:"[^"]*"|'[^']*'|[^\s"'])+""",
    re.DOTALL,
)


def mask_secrets(value: Any, *, key: str = "") -> Any:
    """A copy of a config with `MASK` in place of every secret: values whose key names a secret, passwords, keys and
    signatures inside URLs, and values of a JVM's properties that are named so (`-Dstore.password=...`).

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
    words = _words(key)
    # `api_key_env` names the environment variable and `api_key_secret.key` an entry of a scope: neither is the secret
    named = words[-1:] in (["env"], ["scope"], ["name"], ["file"]) or key.endswith("api_key_secret.key")
    if _SECRET_WORDS.intersection(words) and not named:
        return MASK
    if value.startswith("sc://"):
        value = _PARAMETER_SECRET.sub(rf"\1{MASK}", value)
    value = _PROPERTY.sub(_masked_property, value)
    return _QUERY_SECRET.sub(rf"\1{MASK}", _WEB_USER.sub(f"{MASK}@", _USERINFO.sub(f"{MASK}@", value)))


def _words(key: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(key)]


def _masked_property(found: re.Match[str]) -> str:
    if _SECRET_WORDS.intersection(_words(found["name"] or found["plain_name"])):
        return f"{found['begin'] or found['plain_begin']}{MASK}"
    # what is quoted may be all the options
    return found["begin"] + _PROPERTY.sub(_masked_property, found["value"]) if found["quote"] else found[0]


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
