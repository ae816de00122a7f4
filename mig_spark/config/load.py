"""YAML and mappings to a config, and what is said where they do not make one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from mig_spark.config.base import Section
from mig_spark.config.run import Config
from mig_spark.errors import ConfigError

_S = TypeVar("_S", bound=Section)


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a local YAML config and apply `key.sub=value` overrides.

    Raises:
        ConfigError: no such file, broken YAML, unknown or ill-typed keys; the message names each one.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"no config file at {path}: write one with `mig-spark config > config.yaml`")
    return parse_config(file.read_bytes(), overrides, where=str(path))


def parse_config(content: bytes | str, overrides: Iterable[str] = (), *, where: str = "config") -> Config:
    """The same for what such a file holds.

    Args:
        content: YAML.
        overrides: texts `key.sub=value`.
        where: what messages call it.

    Raises:
        ConfigError: broken YAML, unknown or ill-typed keys; the message names each one.
    """
    try:
        plain = yaml.safe_load(content.decode("utf-8") if isinstance(content, bytes) else content)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where} is not YAML: {' '.join(str(e).split())}") from None
    if plain is None:
        plain = {}
    if not isinstance(plain, dict):
        raise ConfigError(f"{where} holds a {type(plain).__name__}; a config is a mapping, see `mig-spark config`")
    for text in overrides:
        _override(plain, text)
    return build_config(plain, where=where)


def build_config(plain: Mapping[str, Any], *, where: str = "config") -> Config:
    """Check a mapping and build the config.

    Raises:
        ConfigError: with one clause a problem.
    """
    return build_part(Config, plain, where=where)


def build_part(kind: type[_S], plain: Mapping[str, Any], *, where: str) -> _S:
    """The same for a section of it."""
    try:
        return kind.model_validate(dict(plain))
    except ValidationError as e:
        problems = "; ".join(_explain(dict(err)) for err in e.errors())
        raise ConfigError(f"{where}: {problems} (see `mig-spark config`)") from None


def _override(plain: dict[str, Any], text: str) -> None:
    key, sep, value = text.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"--set {text!r}: write it as key.sub=value, for example --set select.budget=50000")
    parts = key.strip().split(".")
    here = plain
    for part in parts[:-1]:
        nxt = here.setdefault(part, {})
        if not isinstance(nxt, dict):
            raise ConfigError(f"--set {text!r}: {part!r} is a value, not a section")
        here = nxt
    try:
        here[parts[-1]] = _number(yaml.safe_load(value))
    except yaml.YAMLError:
        raise ConfigError(f"--set {text!r}: {value!r} is not a YAML value") from None


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-6` as text; read it as the number that was meant."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and value[:1] in "+-.0123456789" else value
        except ValueError:
            return value
    return value


# pydantic puts the kind of a tagger or scorer into the place of an error
_KINDS = frozenset(
    {"column", "embedding", "distilled", "instag", "endpoint", "heuristic", "deita", "ifd", "reward", "combine"}
)

_ROLES = frozenset({"tagger", "scorer", "quality", "complexity"})


def _explain(err: dict[str, Any]) -> str:
    whole = [str(p) for p in err["loc"]]
    loc = [p for p, before in zip(whole, ["", *whole], strict=False) if before not in _ROLES or p not in _KINDS]
    name = ".".join(loc) or "config"
    if err["type"] == "extra_forbidden":
        near = difflib.get_close_matches(loc[-1], _known_keys(), n=1)
        return f"unknown key {name!r}" + (f", did you mean {near[0]!r}?" if near else "")
    if err["type"] == "missing":
        return f"{name!r} is missing"
    given = repr(err.get("input"))
    return f"{name} = {given if len(given) < 80 else given[:77] + '...'}: {err['msg'].removeprefix('Value error, ')}"


def _known_keys() -> set[str]:
    keys: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            keys.update(node.get("properties", {}))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(Config.model_json_schema(by_alias=True))
    return keys
