"""The selection as files: the run's own file, and the formats of `plugins.EXPORTS`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mig_spark.config import Config
from mig_spark.contracts import SELECTION
from mig_spark.errors import ConfigError, ContractError, ExportError, InputError
from mig_spark.export.check import as_lines, check_files, see_that_it_has_dialogues
from mig_spark.export.convert import Further
from mig_spark.export.folder import new_folder, see_that_it_is_free
from mig_spark.export.format import Format, LineFormat, TableFormat, Told
from mig_spark.export.formats.records import Records, RecordsWithAdded
from mig_spark.export.rows import OF_SELECTION, in_order, names_of, selected, selected_rows
from mig_spark.export.sets import ONE_FILE_ROWS, SKIPPED, Sets
from mig_spark.export.tables import write_table
from mig_spark.kernels.export.lines import added_to
from mig_spark.lakehouse.files import write_lines
from mig_spark.lakehouse.spark_failures import spark_failures
from mig_spark.lakehouse.storage import Files
from mig_spark.lakehouse.tables import Store
from mig_spark.masking import mask_secrets
from mig_spark.plugins import EXPORTS

#: Bytes of a file that are read to see what was added to its first record.
_HEAD = 1 << 20
_FILE_NAMES = (".jsonl", ".json", ".ndjson", ".jsonlines")


#: Reasons that are told where rows are left out.
_REASONS = 3


@dataclass
class Exported:
    """What was written.

    Attributes:
        rows: number of records by set.
        skipped: number of rows by the reason why the format could not hold them.
        keys_left_out: rows that were written, by a key of their records that stays out; the most frequent keys.
        files: the files, relative to the folder; shards as a pattern.
        examples: one reason in full, with its numbers and texts, by the reason in `skipped`.
    """

    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    keys_left_out: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        total = {"written": sum(self.rows.values()), "left_out": sum(self.skipped.values())}
        told = {"rows": self.rows, "skipped": self.skipped, "keys_left_out": self.keys_left_out}
        return {**total, **told, "files": self.files}


def export_selection(store: Store, path: str) -> int:
    """Write a run's own selection file: the original records in order of rank, one a line.

    A record of JSON lines is there byte for byte; one of a JSON array too, with line ends between its values removed; a
    row of a table as JSON, see docs/formats.md. With `output.annotate_records`, each has what the selection says of it
    (id, rank, gain, labels, score) under the key `_mig`.

    Returns:
        Number of rows.

    Raises:
        LeaseError: another run has the lease by now.
    """
    store.check_lease()
    form = RecordsWithAdded() if store.output.annotate_records else Records()
    return write_lines((form.line(row, {}) for row in in_order(selected_rows(store))), path, store.spark)


def is_as_configured(store: Store, path: str) -> bool:
    """Whether the run's own selection file, which is there, has what `output.annotate_records` says."""
    first = store.read(SELECTION).where("rank = 1").select(*OF_SELECTION).first()
    if first is None:
        return True
    files = Files(store.spark)
    head = files.head(files.find(path)[0][0], _HEAD).decode("utf-8", "replace")
    # records may bring what an earlier selection added to them
    added = json.loads(json.dumps(first.asDict(recursive=True)))
    return bool(added_to(head) == added) == store.output.annotate_records


def format_named(name: str, config: Config | None = None) -> Format:
    """A format by its name, with the options that `output.exports` gives it.

    Raises:
        InputError: there is none; the message lists those that there are, and the nearest.
    """
    given = [f for f in config.output.exports if f.kind == name] if config is not None else []
    if given:
        form: Format = given[0]
    else:
        try:
            form = EXPORTS.get(name)()
        except ConfigError as e:
            raise InputError(f"--to {name}: {e}") from None
    if type(form) is Records and config is not None and config.output.annotate_records:
        return RecordsWithAdded()
    return form


def names_file(out: str) -> bool:
    """Whether a place where an export goes is meant as a file: by its name, or since it is a pipe or a device."""
    return out.endswith(_FILE_NAMES) or out.startswith("/dev/")


def export_file(store: Store, config: Config, form: Format, path: str, *, first: int | None = None) -> Exported:
    """Write the selection that is published into one file of JSON lines, in order of rank.

    Args:
        store: the tables.
        config: where they are, and which columns of a record have a role.
        form: a format that can hold every row: the others list those that they cannot, which needs a folder.
        path: the file; one that is there is replaced.
        first: only so many rows, the first by rank.

    Raises:
        InputError: the format is a folder; or as `selected`.
    """
    if not (isinstance(form, LineFormat) and form.holds_all):
        raise InputError(f"--out {path}: {form.kind} is a folder, with its sets and what it cannot hold: name a folder")
    chosen = selected(store, first)
    lines = (form.line(row, form.record(row)) for row in in_order(selected_rows(chosen, first), names_of(config)))
    return Exported({"train": write_lines(lines, path, store.spark)}, {}, [path])


def export_folder(
    store: Store,
    config: Config,
    form: Format,
    out: str,
    *,
    first: int | None = None,
    strict: bool = False,
    check: bool = False,
    further: Further | None = None,
) -> Exported:
    """Write the selection that is published into a folder, in order of rank: a file or a folder of shards for each set
    of rows, what the trainer reads beside them, and `SKIPPED` where the format cannot hold a row.

    Args:
        store: the tables.
        config: where they are, and which columns of a record have a role.
        form: the format.
        out: the folder; it may be there if it is empty.
        first: only so many rows, the first by rank.
        strict: every row has to be written.
        check: read what was written again before it is published, and hold it against the format; a folder on this
            machine.
        further: more that a record has to keep to, see `convert`.

    Raises:
        ExportError: `strict`, and the format cannot hold a row; nothing is written.
        InputError: it can hold none; the folder is not empty; or as `selected`.
    """
    if further is not None:
        see_that_it_has_dialogues(form)
    if check:
        _see_that_it_can_be_checked(form, out, store)
    see_that_it_is_free(out, store.spark)
    with spark_failures("export"):
        chosen = selected(store, first)
        with new_folder(out, store.spark) as folder:
            done = _fill(chosen, config, form, folder, first=first, strict=strict, further=further)
            if check:
                _see_that_it_is_whole(folder, as_lines(form), further, sum(done.rows.values()))
            store.check_lease()
    return done


def _fill(
    store: Store,
    config: Config,
    form: Format,
    folder: str,
    *,
    first: int | None = None,
    strict: bool = False,
    further: Further | None = None,
) -> Exported:
    """Write the rows of `selected` tables into a folder; see `export_folder`."""
    if isinstance(form, TableFormat):
        rows, files = write_table(store, config, form, folder, first=first)
        return Exported({"train": rows}, {}, [files])
    assert isinstance(form, LineFormat), form
    return _write_lines(store, config, form, folder, first=first, strict=strict, further=further)


def _write_lines(
    store: Store,
    config: Config,
    form: LineFormat,
    folder: str,
    *,
    first: int | None,
    strict: bool,
    further: Further | None,
) -> Exported:
    sets, df = Sets(store, form, folder), selected_rows(store, first)
    if (store.read(SELECTION).count() if first is None else first) <= ONE_FILE_ROWS:
        sets.by_driver(in_order(df, names_of(config)), further)
    else:
        sets.by_executors(df, names_of(config), further)
    _see_that_rows_fit(sets, form, strict=strict)
    sources, skipped = dict(sets.sources.most_common()), dict(sets.skipped.most_common())
    told = Told(sources, skipped, _run_of(store), _plain(config))
    for name, text in form.beside(sets.written(), told).items() if sets.rows else ():
        write_lines(text.removesuffix("\n").split("\n"), f"{folder}/{name}", store.spark)
        sets.files.append(name)
    left_out = dict(sorted(sets.left_out.items(), key=lambda kv: (-kv[1], kv[0])))
    return Exported(dict(sorted(sets.rows.items())), skipped, sorted(sets.files), left_out, dict(sets.examples))


def _see_that_it_can_be_checked(form: Format, out: str, store: Store) -> None:
    as_lines(form)
    if Files(store.spark).os_path(out) is None:
        raise InputError(f"--check --out {out}: files are checked on this machine: name a folder of its own")


def _see_that_it_is_whole(folder: str, form: LineFormat, further: Further | None, rows: int) -> None:
    found = check_files(folder, form, further)
    wrong = sum(found.problems.values())
    if wrong or found.records != rows:
        example = f", for example {found.places[0]}" if found.places else ""
        raise ContractError(
            f"--check: {rows:,} records were written, {found.records:,} are there, and {wrong:,} are not as "
            f"{form.kind} wants them{example}: nothing is published"
        )


def export_all(store: Store, config: Config, path: str) -> dict[str, Any]:
    """Write the selection in every format of `output.exports`, each into its folder below `path`, in place of what an
    earlier run wrote there: all of them, or after an error none; what was written, by format."""
    done = {}
    with spark_failures("export"), contextlib.ExitStack() as folders:
        chosen = selected(store)
        for form in config.output.exports:
            folder = folders.enter_context(new_folder(f"{path}/{form.kind}", store.spark, replace=True))
            done[form.kind] = _fill(chosen, config, format_named(form.kind, config), folder).to_dict()
        store.check_lease()
    return done


def describe_export(done: Exported, out: str) -> str:
    """What was written, in a line; its end counts rows, and keys of records, that were left out."""
    total, left_out = sum(done.rows.values()), sum(done.skipped.values())
    line = f"  {total:,} rows in {out}"
    if len(done.rows) > 1:
        line += f" ({', '.join(f'{n:,} {name}' for name, n in done.rows.items())})"
    if left_out:
        line += f"; {left_out:,} left out, listed in {SKIPPED} ({_why(done.skipped, done.examples)})"
    if done.keys_left_out:
        most = [f"{key} ({n:,} row{'' if n == 1 else 's'})" for key, n in done.keys_left_out.items()]
        more = f" and {len(most) - 3:,} more" if len(most) > 3 else ""
        line += f"; keys that no trainer reads stay out: {', '.join(most[:3])}{more}"
    return line


def _why(skipped: Mapping[str, int], examples: Mapping[str, str]) -> str:
    """The most frequent reasons why rows were left out, each with the words of one of its rows."""
    most = sorted(skipped.items(), key=lambda pair: -pair[1])
    told = []
    for reason, n in most[:_REASONS]:
        example = examples.get(reason, reason)
        told.append(f"{n:,} such as: {example}" if n > 1 and example != reason else f"{n:,} {example}")
    if rest := sum(n for _, n in most[_REASONS:]):
        told.append(f"{rest:,} for other reasons")
    return "; ".join(told)


def _see_that_rows_fit(sets: Sets, form: LineFormat, *, strict: bool) -> None:
    left_out, why = sum(sets.skipped.values()), _why(sets.skipped, sets.examples)
    if left_out and not sets.rows:
        raise InputError(f"none of the {left_out:,} selected rows fits the format {form.kind}: {why}: choose another")
    if left_out and strict:
        raise ExportError(
            f"--strict: {left_out:,} of {left_out + sum(sets.rows.values()):,} rows do not fit the format "
            f"{form.kind}, so nothing is written: {why}"
        )


def _run_of(store: Store) -> str:
    row = store.read(SELECTION).select("run_id").first()
    return "" if row is None else str(row["run_id"])


def _plain(config: Config) -> dict[str, Any]:
    plain = mask_secrets(config.to_dict())
    return {name: plain[name] for name in ("pool", "annotate", "graph", "select")}
