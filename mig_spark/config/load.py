"""YAML and mappings to a config, and what is said where they do not make one."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from mig_spark.config.base import Section
from mig_spark.config.run import Config
from mig_spark.config.wording import in_words
from mig_spark.errors import ConfigError
from mig_spark.masking import MASK, mask_secrets
from mig_spark.scrub import remember_settings

_S = TypeVar("_S", bound=Section)

#: Sections that say where a run is and what it runs on, not what it does.
_WHERE = ("output", "spark", "tracking")


#: Integers that YAML 1.1 reads to another base than the one in which people write: octal, and base 60.
_OTHER_BASE = re.compile(r"[-+]?0[0-7_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class _Reader(yaml.SafeLoader):
    """A safe YAML reader that refuses what PyYAML silently takes for something else: a key that is there twice (the
    last one counts), 010 (eight) and 60:30 (3630)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build the mapping of a YAML node.

        Raises:
            ConstructorError: a key is there twice.
        """
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if (first := lines.get(key.value)) is not None:
                told = f"the key {key.value!r} is there twice, first in line {first}: put both into one"
                raise yaml.constructor.ConstructorError(None, None, told, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def _number_of(read: Callable[[_Reader, yaml.ScalarNode], float], reader: _Reader, node: yaml.ScalarNode) -> float:
    value = read(reader, node)
    if _OTHER_BASE.fullmatch(node.value):
        base = 60 if ":" in node.value else 8
        told = f"{node.value[:20]} is YAML's way to write {value} to the base {base}: write {value}, or text in quotes"
        raise yaml.constructor.ConstructorError(None, None, told, node.start_mark)
    return value


for _tag, _usual in (("int", yaml.SafeLoader.construct_yaml_int), ("float", yaml.SafeLoader.construct_yaml_float)):
    _Reader.add_constructor(f"tag:yaml.org,2002:{_tag}", partial(_number_of, _usual))


def _read(text: str) -> Any:
    return yaml.load(text, Loader=_Reader)  # noqa: S506 - a SafeLoader


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a local YAML config and apply `key.sub=value` overrides.

    Raises:
        ConfigError: no such file, broken YAML, unknown or ill-typed keys; the message names each one.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"no config file at {path}: write one with `mig-spark init PATH`, PATH your pool")
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
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        plain = _read(text)
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where} cannot be read as YAML: {_yaml_problem(e)}") from None
    if plain is None:
        plain = {}
    if not isinstance(plain, dict):
        raise ConfigError(f"{where} holds a {type(plain).__name__}; a config is a mapping, see `mig-spark config`")
    for text in overrides:
        _override(plain, text)
    return build_config(plain, where=where)


def check_overrides(overrides: Iterable[str], allowed: Iterable[str]) -> None:
    """See that overrides set nothing but allowed keys and what is below them.

    Args:
        overrides: texts `key.sub=value`.
        allowed: keys, for example `select.budget`; `select.quotas` allows `select.quotas.column` too.

    Raises:
        ConfigError: one sets another key.
    """
    keys = [key.strip() for key in allowed]
    for text in overrides:
        key = text.partition("=")[0].strip()
        if not any(key == known or key.startswith(f"{known}.") for known in keys):
            raise ConfigError(
                f"the override of {key!r} is not allowed here: those of {', '.join(keys) or 'no key'} are; other "
                "values are changed in the config, by whoever deploys the job"
            )


def build_config(plain: Mapping[str, Any], *, where: str = "config") -> Config:
    """Check a mapping and build the config.

    Raises:
        ConfigError: with one clause a problem.
    """
    config = build_part(Config, plain, where=where)
    remember_settings(config.spark.conf)
    return config


def build_part(kind: type[_S], plain: Mapping[str, Any], *, where: str) -> _S:
    """The same for a section of it."""
    try:
        return kind.model_validate(dict(plain))
    except ValidationError as e:
        problems = "; ".join(_explain(dict(err), kind) for err in e.errors())
        raise ConfigError(f"{where}: {problems} (see `mig-spark config`)") from None


def unlike_defaults(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved config that are not the defaults, by dotted key; where it is written and logged is left
    out."""
    usual = build_config({"pool": {"path": "pool"}, "output": {"path": "output"}}, where="defaults").to_dict()
    return {
        key: value
        for section, part in config.items()
        if section not in _WHERE
        for key, value in _unlike(part, usual.get(section), section)
    }


def other_settings(now: Mapping[str, Any], then: Mapping[str, Any], ignored: Collection[str] = ()) -> list[str]:
    """The keys of the section `select` that two configs have different values of, as plain values, each with both.

    Args:
        ignored: keys that do not count.

    >>> other_settings({"select": {"gain": "exact", "seed": 0}}, {"select": {"gain": "gradient"}})
    ['select.gain (exact, and not gradient)']
    """
    one, other = now.get("select") or {}, then.get("select") or {}
    return [
        f"select.{key} ({_as_text(one[key])}, and not {_as_text(other[key])})"
        for key in one
        # a key that an older version did not know says nothing
        if key in other and key not in ignored and one[key] != other[key]
    ]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(mask_secrets(value), ensure_ascii=False)


def _unlike(value: Any, usual: Any, key: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and isinstance(usual, Mapping) and value.get("kind") == usual.get("kind"):
        return [pair for name, part in value.items() for pair in _unlike(part, usual.get(name), f"{key}.{name}")]
    return [] if value == usual else [(key, value)]


def _override(plain: dict[str, Any], text: str) -> None:
    key, sep, value = text.partition("=")
    if not sep or not key.strip():
        raise ConfigError(f"--set {_shown(text)}: write it as key.sub=value, for example --set select.budget=50000")
    parts = key.strip().split(".")
    here = plain
    for part in parts[:-1]:
        # `select:` with nothing below it is null, and so is a section that is off
        nxt = {} if here.get(part) is None else here[part]
        if not isinstance(nxt, dict):
            raise ConfigError(f"--set {_shown(text)}: {part!r} is a value, not a section")
        here[part] = nxt
        here = nxt
    try:
        here[parts[-1]] = _number(_read(value))
    except yaml.constructor.ConstructorError as e:
        raise ConfigError(f"--set {_shown(text)}: {e.problem}") from None
    except yaml.YAMLError:
        raise ConfigError(f"--set {_shown(text)}: what is after = is not a YAML value") from None


def _shown(text: str) -> str:
    """An override as messages show it: without its value where that may be a key."""
    key, sep, value = text.partition("=")
    return repr(f"{key}{sep}{'...' if _hides(key.strip(), key.strip().split('.')) else mask_secrets(value, key=key)}")


def _yaml_problem(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    """What is wrong and where, without the line itself: a secret may stand in it."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        return f"{' '.join(filter(None, (error.context, error.problem)))}{where}"
    return " ".join(str(error).split())


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-6` as text; read it as the number that was meant."""
    if isinstance(value, str):
        try:
            return float(value) if "e" in value.lower() and value[:1] in "+-.0123456789" else value
        except ValueError:
            return value
    return value


#: Keys of a section up to which a message lists them.
_FEW_KEYS = 12
#: keys of the config whose wrong values are not shown
_MAY_BE_A_KEY = frozenset({"base_url", "api_key_env", "api_key_secret", "auth_header", "body"})


def _explain(err: dict[str, Any], kind: type[Section]) -> str:
    whole = [str(p) for p in err["loc"]]
    name = ".".join(whole) or "config"
    if err["type"] == "extra_forbidden":
        return f"unknown key {name!r}{_hint(whole, kind)}"
    if err["type"] == "missing":
        return f"{name!r} is missing"
    if whole[-1:] == ["[key]"]:
        return f"{'.'.join(whole[:-2])} has no {whole[-2]!r}: {in_words(err)}"
    keys = _keys_of(whole, kind)[1] if err["type"] in ("model_type", "model_attributes_type") else []
    more = f"; {name} has {', '.join(keys)}" if 0 < len(keys) <= _FEW_KEYS else ""
    return f"{name}{_given(name, whole, err.get('input'))}: {in_words(err)}{more}"


def _hides(name: str, parts: Iterable[str]) -> bool:
    return bool(_MAY_BE_A_KEY.intersection(parts)) or mask_secrets("-", key=name) == MASK


def _given(name: str, loc: list[str], value: Any) -> str:
    """What was given, short; nothing where a key may stand in the wrong place, or where a secret was masked."""
    if isinstance(value, (dict, list)) or _hides(name, loc):
        return ""
    shown = "null" if value is None else repr(mask_secrets(value, key=name))
    return f" = {shown if len(shown) < 80 else shown[:77] + '...'}"


def _hint(whole: list[str], kind: type[Section]) -> str:
    """What the user may have meant by an unknown key: the nearest key of its section; of all sections, where it stands
    at the top; else the keys that the section has, if they are few."""
    section, here = _keys_of(whole[:-1], kind)
    if whole[-1] in here:
        return f": another kind of {'.'.join(section)} has this key, the one that is given does not"
    if near := difflib.get_close_matches(whole[-1], here, n=1):
        return f", did you mean {near[0]!r}?"
    if section:
        return f": {'.'.join(section)} has {', '.join(here)}" if 0 < len(here) <= _FEW_KEYS else ""
    places = {path[-1]: ".".join(path) for path in sorted(_key_paths(kind), key=lambda path: (-len(path), path))}
    near = difflib.get_close_matches(whole[-1], places, n=1)
    return f", did you mean {places[near[0]]!r}?" if near else ""


def _keys_of(names: list[str], kind: type[Section]) -> tuple[tuple[str, ...], list[str]]:
    """The section that names lead to, and its keys."""
    paths = _key_paths(kind)
    section: tuple[str, ...] = ()
    for part in names:
        # numbers of list items and names of kinds are no keys
        section = (*section, part) if (*section, part) in paths else section
    return section, sorted(path[-1] for path in paths if path[:-1] == section)


def _key_paths(kind: type[Section]) -> set[tuple[str, ...]]:
    """Every key of a section and of the sections in it, as the names that lead to it."""
    schema = kind.model_json_schema(by_alias=True)
    found: set[tuple[str, ...]] = set()

    def walk(node: Mapping[str, Any], path: tuple[str, ...], within: frozenset[str]) -> None:
        ref = node.get("$ref")
        if ref is not None and ref not in within:
            walk(schema["$defs"][ref.rpartition("/")[2]], path, within | {ref})
        for name, value in node.get("properties", {}).items():
            found.add((*path, name))
            walk(value, (*path, name), within)
        inner = [*node.get("anyOf", ()), *node.get("oneOf", ()), node.get("items"), node.get("additionalProperties")]
        for value in inner:
            if isinstance(value, dict):
                walk(value, path, within)

    walk(schema, (), frozenset())
    return found
