"""`mig-spark init`: a first config for a pool, made of what a look at it found, with the reason for each choice."""

from __future__ import annotations

import importlib.util
import math
import re
import shlex
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mig_spark.config import DEFAULT_MODEL, Config, PoolConfig, build_part, parse_config
from mig_spark.config.base import Section
from mig_spark.errors import InputError
from mig_spark.kernels.annotation.models import cpu_has_bfloat16
from mig_spark.kernels.ingest.forms import KINDS
from mig_spark.kernels.ingest.languages import ENGLISH, UNKNOWN_LATIN
from mig_spark.kernels.ingest.names import Names
from mig_spark.kernels.ingest.records import source_name
from mig_spark.kernels.ingest.rejects import NOT_OBJECT, UNKNOWN_SCHEMA, show
from mig_spark.kernels.ingest.seen import Seen
from mig_spark.lakehouse.files import read_with, write_lines
from mig_spark.lakehouse.memory import available_cores
from mig_spark.survey import Survey, survey_pool

#: Rows a second and core that the tagger `embedding` labels, in each of its number formats: `python benchmarks/tag.py`,
#: docs/benchmarks.md.
EMBEDDING_ROWS = {"float32": 50.0, "bfloat16": 150.0}
#: Where `embedding` would take longer than this on the cores of this machine, `distilled` is proposed.
_PATIENCE_SECONDS = 3600.0
#: A model of the sentence-transformers hub that reads about fifty languages.
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
#: The share of the rows that a first config selects.
BUDGET_SHARE = 0.05
_DEFAULT_BUDGET = 1_000
#: Least share of the rows: with labels or a score, for the kinds `column`; in other languages, for another model.
_NEARLY_ALL, _MANY_FOREIGN = 0.99, 0.2
#: Keys that are known to say where a row is from.
_SOURCES = ("dataset", "dataset_name", "data_source", "subset", "task", "task_name", "category", "domain", "origin")
_WIDTH = 116
_NAMED = 4


class _Lines:
    """A YAML text with comments, line by line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str, indent: int = 0) -> None:
        """A comment."""
        # what a user's data says may have line breaks of any sort, which would end the comment, and control characters
        text = "".join(c if c.isprintable() else " " for c in text)
        start = " " * indent + "# "
        self.lines += textwrap.wrap(
            text, _WIDTH, initial_indent=start, subsequent_indent=start, break_long_words=False, break_on_hyphens=False
        )

    def head(self, name: str) -> None:
        """The head of a section."""
        self.lines.append(f"{name}:")

    def key(self, name: str, value: Any, *, off: bool = False) -> None:
        """A key of a section with its value. `off`: as a comment, to be taken on."""
        self.lines.append(f"  {'# ' if off else ''}{name}: {_flow(value)}")

    def gap(self) -> None:
        """An empty line."""
        self.lines.append("")

    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines) + "\n"


def write_starter(
    paths: Sequence[str], out: str, *, columns: Mapping[str, str], output: str | None = None, force: bool = False
) -> tuple[Survey, Config]:
    """Look at a pool, and write a config for it.

    Args:
        paths: of the pool, as `pool.path` takes them.
        out: where the config goes.
        columns: `pool.columns`.
        output: `output.path`; None: `mig-` and the pool's name, after a `_` where that would be read as the pool.
        force: replace a file that is there.

    Returns:
        What was found, and the config that was written.

    Raises:
        InputError: there is a file already; nothing is at a path, or nothing that can be used.
        ConfigError: `columns` has a role that there is not.
    """
    if Path(out).exists() and not force:
        raise InputError(f"{out} is there already: give another name by --out, or --force to replace it")
    pool = {"path": paths[0] if len(paths) == 1 else list(paths), "columns": dict(columns)}
    named = build_part(_Pool, {"pool": pool}, where="init").pool
    for path in paths:
        _see_that_it_is_no_csv(path)
    survey = survey_pool(named)
    see_that_rows_are_usable(survey)
    survey.notes += [
        f"no record that was looked at has the key {key!r}, which --column {role}={key} names"
        for role, key in _absent(survey.seen)
    ]
    if output is None:
        output = f"mig-{_short_name(paths[0])}"
        if any(read_with(output, path) is not None for path in paths):
            output = f"_{output}"  # which is passed over where the pool is read
    text = starter_text(survey, named, output=output)
    config = parse_config(text, where=out)
    write_lines(text.removesuffix("\n").split("\n"), out)
    return survey, config


class _Pool(Section):
    """The section `pool` under its name, so that messages say `pool.columns`."""

    pool: PoolConfig


def _see_that_it_is_no_csv(path: str) -> None:
    if re.search(r"\.[ct]sv(\.gz)?$", path, re.IGNORECASE) and Path(path).is_file():
        raise InputError(
            f"{path} is a table of text, which has no types and no nested values, so it is not read: write it as JSON "
            "lines or Parquet first, for example with pandas: read_csv(...).to_json(..., orient='records', lines=True)"
        )


def _short_name(path: str) -> str:
    plain = re.sub(r"[*?{}\[\]]+", "", path).rstrip("/")
    return re.sub(r"[^\w.-]+", "-", source_name(plain or path)).strip("-.") or "out"


def see_that_rows_are_usable(survey: Survey) -> None:
    """Stop where no record that was looked at is a row.

    Raises:
        InputError: it says why, how the first record begins, and which keys would be recognised.
    """
    seen = survey.seen
    if not seen.records:
        raise InputError(f"no records in {survey.path}: there is nothing to select from")
    if seen.usable:
        return
    reason, count = seen.rejected.most_common(1)[0]
    detail, example = seen.examples[reason]
    said = f"no usable row in {survey.path}: of {seen.records:,} records looked at {count:,} are `{reason}`"
    said += "".join(f"; none has the key {key!r}, which --column {role}={key} names" for role, key in _absent(seen))
    said += f"; the first of them ({detail}) begins with {example}"
    if reason in (UNKNOWN_SCHEMA, NOT_OBJECT):
        said += (
            f"; a record is an object with keys such as: {expected_keys(seen.names)} (docs/formats.md). Where your "
            "keys have other names, say which is which: --column prompt=KEY --column response=KEY"
        )
    raise InputError(said)


def _absent(seen: Seen) -> list[tuple[str, str]]:
    """The entries of `pool.columns`, as (role, key), whose key none of the records that were read has."""
    found = []
    for role in sorted(seen.names.configured):
        keys = getattr(seen.names, role)
        key = keys if isinstance(keys, str) else "".join(keys[:1])
        if key and key not in seen.keys:
            found.append((role, key))
    return found


def expected_keys(names: Names) -> str:
    """The keys by which records are recognised, in words."""
    return (
        f"{' or '.join((*names.messages, *names.conversations, 'dialogs'))} with a list of turns; "
        f"{names.instruction[0]} and {'/'.join(names.output)}; "
        f"{'/'.join(names.prompt)} and {'/'.join(names.response)}; {names.chosen[0]} and {names.rejected[0]}"
    )


def starter_text(survey: Survey, pool: PoolConfig, *, output: str) -> str:
    """The config as YAML.

    Args:
        survey: what is in the pool.
        pool: the path and the columns that the user named.
        output: `output.path`.
    """
    y = _Lines()
    y.say(
        f"For {survey.path}: {', '.join(survey.forms)}; {describe_rows(survey)}. Written by `mig-spark init` from what "
        "it saw there, to be changed; what is not here has its default. `mig-spark config` prints all keys."
    )
    y.gap()
    _pool_section(y, survey, pool)
    y.gap()
    y.head("output")
    y.say("The tables, selection.jsonl and report.html. A relative path is below where mig-spark is started.", 2)
    y.key("path", output)
    y.say(
        "Beside selection.jsonl (the records as they came), for trainers (docs/exports.md): trl, axolotl, "
        "llamafactory, huggingface, ...",
        2,
    )
    y.key("exports", ["trl"], off=True)
    y.gap()
    _annotate_section(y, survey)
    y.gap()
    y.say("Rows of equal content are selected once (screen.copies). Left out before anything is annotated, if named:")
    y.say("screen:")
    y.say("  near_duplicates: {threshold: 0.8, max_per_group: 1}    # one row of those that are nearly the same")
    y.say("  contamination: [{name: NAME, path: FILE, columns: [COLUMN]}]    # rows of your evaluation sets")
    y.gap()
    _select_section(y, survey)
    return y.text()


def _pool_section(y: _Lines, survey: Survey, pool: PoolConfig) -> None:
    seen = survey.seen
    y.head("pool")
    y.key("path", pool.path)
    y.say(f"auto: each record by its keys. Recognised: {shares(seen.schemas)} of {seen.records:,} looked at.", 2)
    if len(seen.schemas) == 1:
        y.say("The schema's name instead of auto rejects records of every other form (docs/formats.md).", 2)
    y.key("schema", "auto")
    for reason, count in seen.rejected.most_common(3):
        detail, _ = seen.examples[reason]
        y.say(f"Rejected: {count:,} of {seen.records:,}, `{reason}`, for example: {_one_line(detail)}", 2)
    if len(seen.kinds) > 1:
        y.say(f"The pool has several kinds of rows: {shares(seen.kinds)}. null keeps all of them.", 2)
        y.key("kinds", [kind for kind in KINDS if kind == seen.kinds.most_common(1)[0][0]], off=True)
    else:
        y.say(
            f"All rows looked at are of the kind {next(iter(seen.kinds))}; a list of kinds would reject the others.", 2
        )
    y.key("kinds", None)
    columns = {str(role): name for role, name in pool.columns.items()}
    _columns(y, survey, columns)


def _columns(y: _Lines, survey: Survey, columns: dict[str, str]) -> None:
    """`pool.columns`: what the user named, and what is certain enough; the rest as comments."""
    seen = survey.seen
    unsure: dict[str, list[str]] = {}
    said: list[str] = []
    if "id" in columns:
        pass
    elif seen.clashes:
        columns["id"] = ""
        said.append(
            f"id: '' (none), since {seen.clashes:,} of {seen.with_id:,} rows share their id with a row of other "
            "content, and such rows would be rejected; each row gets the hash of its content as id"
        )
    elif seen.with_id:
        said.append(f"id: the key {' or '.join(map(show, seen.names.id))} of {seen.with_id:,} rows")
    else:
        unsure["id"] = seen.could_be("id")
        said.append("id: none was recognised, so it is the hash of a row's content")
    if seen.names.source in seen.keys:
        said.append(f"source: the key {show(seen.names.source)}")
    else:
        found = seen.could_be("source")
        known = [name for name in _SOURCES if name in found]
        if known and "source" not in columns:
            columns["source"] = known[0]
            said.append(
                f"source: {show(known[0])}, with {len(seen.keys[known[0]].values):,} values in what was looked at"
            )
        else:
            said.append("source: the name of a row's file or table")
        unsure["source"] = found
    if not seen.labelled:
        unsure["labels"] = seen.could_be("labels")
    if not seen.scored:
        numbers = set(seen.could_be("id")) | set(seen.could_be("source"))
        unsure["score"] = [name for name in seen.could_be("score") if name not in numbers]
    for text in said:
        y.say(text, 2)
    for role, names in unsure.items():
        for name in [name for name in names if name not in columns.values()][:_NAMED]:
            y.say(f"could be, if that is what it means: {role}: {_flow(name)}", 2)
    y.key("columns", columns)


def _annotate_section(y: _Lines, survey: Survey) -> None:
    y.head("annotate")
    tagger, reasons = choose_tagger(survey)
    for reason in reasons:
        y.say(reason, 2)
    y.key("tagger", tagger)
    scorer, reasons = choose_scorer(survey, tagger)
    for reason in reasons:
        y.say(reason, 2)
    y.key("scorer", scorer)


def choose_tagger(survey: Survey) -> tuple[dict[str, Any], list[str]]:
    """The tagger that fits a pool, as its section of the config, and the reasons and alternatives as sentences."""
    seen = survey.seen
    others = (
        "Others (docs/annotation.md): endpoint (a language model behind an OpenAI-compatible endpoint, paid), instag "
        "(a local language model)"
    )
    if seen.labelled >= _NEARLY_ALL * seen.usable:
        reasons = [
            f"column: the rows bring labels ({seen.labelled:,} of {seen.usable:,} looked at, {len(seen.labels):,} "
            f"different ones); rows without go to `rejected`. {others}, embedding (labels by a model, here).",
            "groups: {} would put groups of requests that are worded alike, found in the pool itself, before them.",
        ]
        once = sum(n == 1 for n in seen.labels.values())
        if 2 * once > len(seen.labels) and seen.usable > _NAMED * 10:
            reasons.append(
                f"{once:,} of the labels are on one row only: vocabulary: {{enabled: true}} merges and drops such "
                "(docs/vocabulary.md)."
            )
        return {"kind": "column"}, reasons
    languages = {name: n for name, n in seen.languages.items() if name}
    known = sum(n for name, n in languages.items() if name != UNKNOWN_LATIN)
    foreign = known - languages.get(ENGLISH, 0)
    told = f"Languages, roughly: {shares(Counter(languages))}." if languages else "No language was told."
    if known and foreign > _MANY_FOREIGN * known:
        return {"kind": "embedding", "model": MULTILINGUAL}, [
            f"{told} The default model ({DEFAULT_MODEL}) reads English; this one about fifty languages, and gives the "
            "bundled English labels to rows of any. It is fetched from the model hub at the first run: where that "
            "cannot be reached, name a folder.",
            "Or embedding with a list of labels in your language: vocabulary: labels.json (`mig-spark induce` finds "
            f"some). {others}.",
        ]
    dtype = "bfloat16" if cpu_has_bfloat16() else "float32"
    rate = EMBEDDING_ROWS[dtype]
    seconds = None if survey.rows is None else survey.rows / (rate * available_cores())
    if seconds is not None and seconds > _PATIENCE_SECONDS:
        hours = f"{seconds / 3600:,.0f}" if seconds > 36_000 else f"{seconds / 3600:.1f}"
        tagger, why = {"kind": "distilled"}, (
            f"distilled: static vectors of the same model; embedding (more faithful) would take about {hours} hours on "
            f"this machine's {available_cores()} cores ({rate:.0f} rows a second and core, "
            "docs/benchmarks.md), to be preferred where you have more cores or a GPU"
        )  # fmt: skip
    else:
        tagger, why = {"kind": "embedding"}, "embedding: the nearest of 968 bundled English labels under a small model"
        if dtype != "float32":
            tagger["dtype"] = dtype
            why += (
                f", in {dtype}, which this machine's CPU has instructions for: three times as fast as float32, the "
                "default, and one row in ten has another label of its four; a CPU without them is no slower for it"
            )
    missing = importlib.util.find_spec("sentence_transformers") is None
    needs = " It needs: pip install 'mig-spark[embed]', which is not here." if missing else ""
    own = " The rows bring labels in part only." if seen.labelled else ""
    return tagger, [
        f"{told} {why}.{needs}{own}",
        "Before these labels a row has those of the groups of requests that are worded like its own, found in the pool "
        "itself; groups: null goes without.",
        f"{others}, column (labels of your own, by pool.columns).",
    ]


def choose_scorer(survey: Survey, tagger: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The scorer that fits a pool, likewise."""
    seen = survey.seen
    others = "deita, ifd, reward (local models), endpoint (a judge, paid); docs/annotation.md"
    if seen.scored >= _NEARLY_ALL * seen.usable and tagger["kind"] == "column":
        return {"kind": "column"}, [
            f"column: the rows bring a score, or quality and complexity ({seen.scored:,} of {seen.usable:,} looked "
            f"at). See that more is better. Others: heuristic (rules, no model), {others}."
        ]
    brought = (
        f" {seen.scored:,} of {seen.usable:,} rows looked at bring a score: where it says how good a row is, "
        "{kind: column} takes it."
        if seen.scored
        else ""
    )
    return {"kind": "heuristic"}, [
        f"heuristic: rules over the text, no model; what an answer's defects leave.{brought} Others: {others}."
    ]


def _select_section(y: _Lines, survey: Survey) -> None:
    y.head("select")
    budget = first_budget(survey.rows)
    if survey.rows is None:
        y.say("Rows to select; how many there are could not be told.", 2)
    else:
        y.say(f"Rows to select: {BUDGET_SHARE:.0%} of {describe_rows(survey)}. A selection is nested: its "
              "first k rows are the selection for budget k.", 2)  # fmt: skip
    y.key("budget", budget)
    y.say("mig: exact MIG. To compare with: random, top, and others (docs/strategies.md).", 2)
    y.key("strategy", {"kind": "mig"})


def first_budget(rows: int | None) -> int:
    """A twentieth of the rows, in two digits; at least one row.

    >>> first_budget(27_455), first_budget(999), first_budget(7)
    (1400, 50, 1)
    """
    if rows is None:
        return _DEFAULT_BUDGET
    share = rows * BUDGET_SHARE
    digits = max(0, math.floor(math.log10(share)) - 1) if share >= 1 else 0
    return max(1, int(round(share, -digits)))


def describe_survey(survey: Survey, config: Config) -> str:
    """What `init` saw in the pool and chose for it, as lines to print."""
    seen = survey.seen
    lines = [
        f"  source       {', '.join(survey.forms)}" + (f", {survey.bytes / 1e6:,.1f} MB" if survey.bytes else ""),
        f"  rows         {describe_rows(survey)}",
        f"  looked at    {seen.records:,}",
        f"  schema       {shares(seen.schemas)}",
        f"  kinds        {shares(seen.kinds)}",
    ]
    languages = Counter({name: n for name, n in seen.languages.items() if name})
    if languages:
        lines.append(f"  languages    {shares(languages)} (rough)")
    if len(seen.sources) > 1:
        lines.append(f"  sources      {len(seen.sources):,}: {shares(seen.sources)}")
    if seen.labelled or seen.scored:
        lines.append(f"  brought      labels by {seen.labelled:,} rows, a score by {seen.scored:,}")
    if config.pool.columns.get("id") == "" and seen.clashes:
        lines.append(
            f"  ids          the hash of a row's content: of {seen.with_id:,} rows, {seen.clashes:,} with the id of a "
            "row of other content, and both would be rejected"
        )
    for reason, count in seen.rejected.most_common(3):
        detail = _one_line(seen.examples[reason][0])
        lines.append(f"  rejected     {count:,} of those looked at, `{reason}`, for example: {detail}")
    if others := seen.rejected.most_common()[3:]:
        lines.append(f"  rejected     {sum(n for _, n in others):,} more: {', '.join(reason for reason, _ in others)}")
    lines += [
        f"  tagger       {_named(config.annotate.tagger)}",
        f"  scorer       {_named(config.annotate.scorer)}",
        f"  budget       {config.select.budget:,} row{'' if config.select.budget == 1 else 's'}",
    ]
    return "\n".join([*lines, *(f"  note: {note}" for note in survey.notes)])


def _named(part: Section) -> str:
    """A tagger or scorer by its kind, and what is not the default."""
    more = {k: v for k, v in part.model_dump(exclude_defaults=True).items() if k != "kind"}
    return getattr(part, "kind", "") + "".join(f", {k}: {v}" for k, v in more.items())


def describe_rows(survey: Survey) -> str:
    """The number of rows, and whether it was counted."""
    if survey.rows is None:
        return "number of rows unknown"
    said = f"{survey.rows:,} rows, counted" if survey.counted else f"about {_round(survey.rows):,} rows, estimated"
    return said if survey.rows != 1 else "1 row, counted"


def shares(counts: Counter[str], most: int = _NAMED) -> str:
    """Counts as shares, the most frequent first.

    >>> shares(Counter(a=3, b=1))
    'a 75%, b 25%'
    """
    total = counts.total()
    named = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(named) == 1:
        return f"{named[0][0]} 100%"
    shown = [f"{name} {_percent(n / total)}" for name, n in named[:most]]
    return ", ".join(shown) + (f", {len(named) - most} more" if len(named) > most else "")


def _percent(share: float) -> str:
    return "under 1%" if share < 0.01 else "over 99%" if 0.99 < share < 1 else f"{share:.0%}"


def _round(number: int) -> int:
    digits = max(0, len(str(number)) - 2)
    return round(number, -digits)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:160]


def _flow(value: Any) -> str:
    """A value as YAML in one line."""
    # line breaks of any sort, and control characters, survive only in double quotes, escaped
    plain = repr(value).isprintable() and "\\" not in repr(value)
    text: str = yaml.safe_dump(
        value,
        default_flow_style=True,
        sort_keys=False,
        width=10_000,
        allow_unicode=plain,
        default_style=None if plain else '"',
    )
    return text.removesuffix("\n...\n").strip()


def next_commands(out: str) -> str:
    """What to type next."""
    name = shlex.quote(out)
    return f"  next:        look at {out}, then: mig-spark run {name} --dry-run, and: mig-spark run {name}"
