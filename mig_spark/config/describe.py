"""The example config, docs/configuration.md and the lists of kinds, made of the config models' own descriptions.

docs/tables.md is made of the table contracts (`describe_tables.py`).

`python -m mig_spark.config.describe DOCS` writes the pages anew (`make docs`); a test holds that they are up to date.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mig_spark.config.describe_tables import tables_page
from mig_spark.config.kinds import OneOf
from mig_spark.config.run import Config
from mig_spark.plugins import EXPORTS, SCORERS, STRATEGIES, TAGGERS, Registry

#: Families whose member a config names, by the key that names it.
FAMILIES: Mapping[str, Registry[Any]] = {
    "annotate.tagger": TAGGERS,
    "annotate.scorer": SCORERS,
    "select.strategy": STRATEGIES,
    "output.exports": EXPORTS,
}

_WIDTH, _COMMENT_AT = 120, 33
_HEAD = """\
# A run of mig-spark. Only pool.path and output.path are needed; the other values are the defaults.
# Any value can be set on the command line too: --set select.budget=50000
"""
_BEGIN, _END = "<!-- written by make docs: {} -->", "<!-- end -->"


def example_yaml() -> str:
    """A config with every key, its default and what it means."""
    return "\n".join([_HEAD, *_section(Config, "")]).rstrip() + "\n"


def configuration_page() -> str:
    """docs/configuration.md: every section of the config as a table."""
    lines = [
        "# Configuration",
        "",
        "Every key of a config, made of the config models by `make docs`. `mig-spark config` prints them as an "
        "example, `mig-spark config --schema` as a JSON schema, with the kinds that installed packages bring "
        "([extending.md](extending.md)).",
        "",
    ]
    lines += _tables(Config, "")
    return "\n".join(lines).rstrip() + "\n"


def kinds_table(key: str) -> str:
    """A family's members as a table in Markdown.

    Args:
        key: the key that names the member, one of `FAMILIES`.
    """
    members = FAMILIES[key].all()
    costs = any(hasattr(model, "costs") for model in members.values())
    lines = (
        ["| kind | cost | what it is |", "| --- | --- | --- |"] if costs else ["| kind | what it is |", "| --- | --- |"]
    )
    for kind, model in members.items():
        cost = f" {model.costs()} |" if costs else ""
        lines.append(f"| `{kind}` |{cost} {_cell(_doc(model))} |")
    return "\n".join(lines)


def summary(model: type[BaseModel]) -> str:
    """The first sentence of a model's docstring."""
    return re.split(r"\.(?=\s|$)", _doc(model))[0]


def write_pages(docs: Path) -> None:
    """Write what is made of the models into the pages of `docs`."""
    for name, text in pages(docs).items():
        (docs / name).write_text(text, encoding="utf-8")


def pages(docs: Path) -> dict[str, str]:
    """What the pages that `make docs` writes should hold, by file name: configuration.md and tables.md as a whole, and
    each page of the folder `docs` that has a table of taggers, scorers, strategies or export formats in it."""
    made = {"configuration.md": configuration_page(), "tables.md": tables_page()}
    for page in sorted(docs.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for key in FAMILIES:
            head, begin, rest = text.partition(_BEGIN.format(key) + "\n")
            if begin:
                text = f"{head}{begin}{kinds_table(key)}\n{_END}{rest.partition(_END)[2]}"
        if page.name not in made:
            made[page.name] = text
    return made


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and every model below it, each once; of a family all members."""
    seen: dict[type[BaseModel], None] = {}

    def walk(here: type[BaseModel]) -> None:
        if here not in seen:
            seen[here] = None
            for field in here.model_fields.values():
                family = _family(field)
                for below in [*_models(field.annotation), *(family.members().values() if family else ())]:
                    walk(below)

    walk(model)
    yield from seen


def _section(model: type[BaseModel], indent: str, *, optional: bool = False) -> list[str]:
    """The keys of a section as YAML; of an `optional` one, which is not there by default, as comments."""
    lines: list[str] = []
    for name, field in _fields(model):
        below, family = _models(field.annotation), _family(field)
        start = f"{indent}# " if optional else indent
        default = field.get_default(call_default_factory=True)
        if not indent and lines and (below or lines[-1].startswith(" ")):
            lines.append("")
        if family is not None and isinstance(default, dict):
            members = family.members()
            lines += _commented(f"{start}{name}:", field.description or "")
            lines += _section(members[default["kind"]], f"{indent}  ", optional=optional)
            lines.append(f"{indent}  # other kinds, with keys of their own (docs/configuration.md):")
            for kind, member in members.items():
                if kind != default["kind"]:
                    lines += _wrapped(f"{indent}  #   ", f"{kind}: {summary(member)}")
        elif below and (field.is_required() or isinstance(default, below[0])):
            lines += _commented(f"{start}{name}:", field.description or summary(below[0]))
            lines += _section(below[0], f"{indent}  ", optional=optional)
        elif below and default is None:
            lines += _commented(f"{start}{name}: null", f"{field.description or summary(below[0])}; or a section:")
            lines += _section(below[0], f"{indent}  ", optional=True)
        elif field.is_required() and not field.examples:
            lines += _commented(f"{start}{name}:", f"needed: {_meaning(field)}")
        else:
            value = field.examples[0] if field.examples else _default(field)
            lines += _commented(f"{start}{name}: {_plain(value)}", _meaning(field))
            for kind, member in family.members().items() if family is not None else ():
                lines += _wrapped(f"{indent}  #   ", f"{kind}: {summary(member)}")
    return lines


def _tables(model: type[BaseModel], path: str) -> list[str]:
    """A section, and the sections below it, each with a heading."""
    title = f"`{path}`" if path else "Top level"
    return [f"## {title}", "", _cell(_doc(model)), "", *_table(model), *_below(model, path)]


def _table(model: type[BaseModel]) -> list[str]:
    if all(tells_a_kind(field) for field in model.model_fields.values()):
        return ["No keys of its own.", ""]
    lines = ["| key | value | default | what it means |", "| --- | --- | --- | --- |"]
    for name, field in _fields(model):
        if tells_a_kind(field):
            continue
        value = field.get_default(call_default_factory=True)
        default = "needed" if field.is_required() else f"`{_plain(_default(field))}`"
        if isinstance(value, BaseModel):
            default = "as below"
        meaning = field.description or "; ".join(summary(below) for below in _models(field.annotation))
        lines.append(f"| `{name}` | {_values(field)} | {_cell(default)} | {_cell(meaning)} |")
    return [*lines, ""]


def _below(model: type[BaseModel], path: str) -> list[str]:
    lines: list[str] = []
    for name, field in _fields(model):
        key = f"{path}.{name}" if path else name
        family = _family(field)
        for below in _models(field.annotation):
            lines += _tables(below, key)
        if family is not None and key in FAMILIES:
            for kind, member in family.members().items():
                lines += [f"### `{key}`, `kind: {kind}`", "", _cell(_doc(member)), "", *_table(member)]
                for inner, inner_field in _fields(member):
                    for part in _models(inner_field.annotation):
                        lines += [f"`{inner}`: {_cell(_doc(part))}", "", *_table(part)]
    return lines


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """(key in the config, field) of every field of a model, `kind` first."""
    named = [(field.alias or name, field) for name, field in model.model_fields.items()]
    return sorted(named, key=lambda item: item[0] != "kind")


def tells_a_kind(field: FieldInfo) -> bool:
    """Whether a field only says which member of a family its section is."""
    return get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1


def _family(field: FieldInfo) -> OneOf | None:
    """The family that a field, or each element of its list, is a member of."""
    marks = [*field.metadata, *(mark for part in get_args(field.annotation) for mark in get_args(part))]
    return next((mark for mark in marks if isinstance(mark, OneOf)), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's type names, whatever is around them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        # a family's base class is no section by itself
        return [annotation] if annotation.model_fields else []
    return [model for part in get_args(annotation) for model in _models(part)]


def _choices(annotation: Any) -> list[str]:
    """The words that a field's type allows, or those that its keys or elements may be."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


_WORDS: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def _values(field: FieldInfo) -> str:
    """What a field takes, in words."""
    if _family(field) is not None:
        some = get_origin(field.annotation) is list
        return "a list of names, or of the sections below" if some else "one of the sections below"
    limits = [
        f"{words} {getattr(mark, name):g}"
        for name, words in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))
        for mark in field.metadata
        if getattr(mark, name, None) is not None
    ]
    return _cell(" ".join([_type(field.annotation), *limits]))


def _type(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is list:
        return f"a list of {_type(parts[0])}"
    if origin is dict:
        return f"a mapping from {_type(parts[0])} to {_type(parts[1])}"
    if parts:
        return " or ".join(_type(part) for part in parts)
    return _WORDS.get(annotation, "a section")


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


def _meaning(field: FieldInfo) -> str:
    choices = [] if tells_a_kind(field) else _choices(field.annotation)
    return "; ".join(filter(None, [" | ".join(choices), field.description or ""]))


def _plain(value: Any) -> str:
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("\n...\n").strip()
    )


def _commented(text: str, comment: str) -> list[str]:
    """A line of YAML with what it means beside it, wrapped."""
    if not comment:
        return [text]
    at = max(_COMMENT_AT, len(text) + 1)
    first, *rest = textwrap.wrap(comment, max(40, _WIDTH - at - 4), break_long_words=False)
    return [f"{text.ljust(at)}# {first}", *(f"{' ' * at}#   {line}" for line in rest)]


def _wrapped(start: str, text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=f"{start}  ", break_long_words=False)


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
