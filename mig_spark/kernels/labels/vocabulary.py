"""The vocabulary as rows that people can edit: from raw tags to labels, and what an edit means.

One row is one label or what would have been one: the raw tags with one normal form. It is kept, merged into another
label, or dropped. A row edited by hand stays as it is; the raw tags that it lists, and its own label, are its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import pandas as pd

from mig_spark.errors import InputError

KEPT, MERGED, DROPPED = "kept", "merged", "dropped"
#: raw tag to label; None where the tag is dropped
TagMap: TypeAlias = dict[str, str | None]


@dataclass(frozen=True)
class Entry:
    """One row of the table `vocabulary`.

    Attributes:
        label: unique; of a row that nobody edited, its most frequent raw tag.
        status: kept, merged or dropped.
        merged_into: the label that it is merged into.
        raw_tags: raw tag to the pool rows that carry it.
        frequency: pool rows that carry it; of a kept label, with all that is merged into it.
        reason: why it was merged or dropped.
        edited: by hand.
        as_written: what the stage itself said, as JSON (`content`); None for a row that was added by hand.
    """

    label: str
    status: str = KEPT
    merged_into: str | None = None
    raw_tags: Mapping[str, int] = field(default_factory=dict)
    frequency: int = 0
    reason: str | None = None
    edited: bool = False
    as_written: str | None = None

    def content(self) -> str:
        """What an edit can change, as JSON."""
        said = {"label": self.label, "status": self.status, "merged_into": self.merged_into}
        return json.dumps({**said, "raw_tags": sorted(self.raw_tags)}, ensure_ascii=False)

    def text(self) -> str:
        """What stands for the label where its meaning counts: its most frequent raw tag, so that renaming it by hand
        does not change what is near it."""
        return most_frequent(self.raw_tags) or self.label

    def drop(self, reason: str) -> Entry:
        """This row dropped."""
        return replace(self, status=DROPPED, merged_into=None, reason=reason)

    def merge(self, label: str | None, reason: str) -> Entry:
        """This row merged into `label`."""
        return replace(self, status=MERGED, merged_into=label, reason=reason)


def most_frequent(counts: Mapping[str, int]) -> str | None:
    """The tag with the greatest count, the first by name of equal ones."""
    return min(counts, key=lambda tag: (-counts[tag], tag), default=None)


def is_edited(entry: Entry) -> bool:
    """Whether a row that was read is by hand: marked so, added, or not as the stage wrote it."""
    return entry.edited or entry.as_written is None or entry.as_written != entry.content()


def edited_entries(entries: Iterable[Entry]) -> list[Entry]:
    """The rows that were edited by hand, checked and marked.

    Raises:
        InputError: a label twice, a raw tag in two rows, an unknown status, or merges that go in a circle.
    """
    found = [replace(entry, edited=True) for entry in entries if is_edited(entry)]
    owner: dict[str, str] = {}
    labels: set[str] = set()
    for entry in found:
        if not entry.label or entry.status not in (KEPT, MERGED, DROPPED):
            raise InputError(
                f"vocabulary: a row edited by hand has label {entry.label!r} and status {entry.status!r}; "
                "a label and one of kept, merged, dropped are needed"
            )
        if entry.label in labels:
            raise InputError(f"vocabulary: two rows edited by hand have the label {entry.label!r}: leave one")
        if entry.status == MERGED and not entry.merged_into:
            raise InputError(f"vocabulary: {entry.label!r} is merged, but into nothing: set merged_into")
        labels.add(entry.label)
        for tag in entry.raw_tags:
            if owner.setdefault(tag, entry.label) != entry.label:
                raise InputError(
                    f"vocabulary: the raw tag {tag!r} is in the rows {owner[tag]!r} and {entry.label!r}, both edited "
                    "by hand: leave it in one"
                )
    resolve(found)
    return found


def resolve(entries: Sequence[Entry]) -> dict[str, str | None]:
    """Where every row's label ends: the kept label at the end of its merges, None where that is dropped.

    A label that a hand has merged something into is kept whatever the stage said of it, and need not have a row.

    Raises:
        InputError: merges that go in a circle.
    """
    rows = _by_label(entries)
    renamed = _renamed(rows)
    pinned = pinned_labels(entries)

    def end(entry: Entry) -> str | None:
        seen = [entry.label]
        while entry.status == MERGED and not (entry.label in pinned and not entry.edited):
            target = renamed.get(entry.merged_into or "", entry.merged_into)
            if target in seen:
                raise InputError(f"vocabulary: merged in a circle: {' -> '.join([*seen, str(target)])}; end it by hand")
            if target not in rows:
                return target
            entry = rows[target]
            seen.append(entry.label)
        return None if entry.status == DROPPED and (entry.edited or entry.label not in pinned) else entry.label

    return {label: end(entry) for label, entry in rows.items()}


def pinned_labels(entries: Iterable[Entry]) -> set[str]:
    """Labels that edited rows are merged into."""
    rows = _by_label(entries)
    renamed = _renamed(rows)
    into = (e.merged_into for e in rows.values() if e.edited and e.status == MERGED and e.merged_into)
    return {renamed.get(label, label) for label in into}


def tag_map(entries: Sequence[Entry]) -> TagMap:
    """The map that the rows stand for; where an edited row and another both claim a tag, the edited row has it.

    Raises:
        InputError: merges that go in a circle.
    """
    ends = resolve(entries)
    rows = _by_label(entries)
    by_stage = {tag: ends[e.label] for e in rows.values() if not e.edited for tag in e.raw_tags}
    edited = [e for e in rows.values() if e.edited]
    return by_stage | {e.label: ends[e.label] for e in edited} | {t: ends[e.label] for e in edited for t in e.raw_tags}


def map_hash(mapping: TagMap) -> str:
    """sha256 of the map, for the run's record."""
    return hashlib.sha256(json.dumps(sorted(mapping.items()), ensure_ascii=False).encode()).hexdigest()


def group_tags(counts: Mapping[str, int], forms: Mapping[str, str], edited: Sequence[Entry]) -> list[Entry]:
    """Rows for the raw tags of a pool: the edited ones with their counts brought up to date, then one a normal form.

    A new spelling of what an edited row lists goes where that row goes; where several list spellings of one form, the
    hand has told them apart and a new spelling stands for itself.

    Args:
        counts: raw tag to pool rows.
        forms: raw tag, or an edited row's tags and label, to normal form.
        edited: from `edited_entries`.
    """
    owner = {entry.label: entry for entry in edited} | {tag: entry for entry in edited for tag in entry.raw_tags}
    by_form: dict[str, set[str]] = {}
    for tag, entry in owner.items():
        by_form.setdefault(forms[tag], set()).add(entry.label)
    named = {entry.label: entry for entry in edited}
    groups: dict[str, dict[str, int]] = {}
    for tag in sorted(counts):
        if tag not in owner:
            groups.setdefault(forms[tag], {})[tag] = counts[tag]
    rows = [replace(e, raw_tags={tag: counts.get(tag, 0) for tag in e.raw_tags}) for e in edited]
    pinned = pinned_labels(edited)
    for form, tags in groups.items():
        forced = sorted(pinned & tags.keys())
        label = forced[0] if forced else most_frequent(tags)
        assert label is not None
        row = Entry(label, raw_tags=tags)
        like = by_form.get(form, set())
        if not form:
            row = row.drop("nothing but punctuation")
        elif len(like) == 1 and not forced:
            said = named[next(iter(like))]
            reason = f"the same words as {said.label!r}, which was edited by hand"
            row = row.drop(reason) if said.status == DROPPED else row.merge(said.label, reason)
        rows.append(row)
    have = {row.label for row in rows}
    return rows + [Entry(label, reason="named by hand") for label in sorted(pinned - have)]


def sign(entry: Entry) -> Entry:
    """The row as it is to be written: what the stage says is put down beside it, so that an edit can be recognised."""
    return entry if entry.edited else replace(entry, as_written=entry.content())


def _by_label(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Rows by label; an edited row comes before the stage's own of the same label."""
    return {e.label: e for e in sorted(entries, key=lambda e: e.edited)}


def _renamed(rows: Mapping[str, Entry]) -> dict[str, str]:
    """What the stage called a row to what a hand calls it now."""
    found = {}
    for entry in rows.values():
        if entry.edited and entry.as_written is not None:
            before = str(json.loads(entry.as_written)["label"])
            if before not in rows:
                found[before] = entry.label
    return found


def map_arrays(tags: pd.Series, mapping: TagMap) -> pd.Series:
    """Lists of tags to lists of labels: each label once, in order of its first tag; null stays null."""

    def labels(row: Iterable[str] | None) -> list[str] | None:
        if row is None:
            return None
        found = (mapping.get(tag) for tag in row)
        return list(dict.fromkeys(label for label in found if label is not None))

    return pd.Series([labels(row) for row in tags], index=tags.index, dtype=object)
