"""The vocabulary as rows that people can edit: which raw tags become which label, and what an edit means.

Each row is a group of raw tags with the same normal form. The group becomes a label of its own (kept), becomes part of
another label (merged), or none (dropped). A row that was edited by hand is never changed, and the raw tags that it
lists are in no other row.
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
# how the reason begins of a row that follows an edited one
_SAME_WORDS = "the same words as"
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
        frequency: pool rows that carry one of its raw tags; for a kept label also one merged into it.
        reason: why it was merged or dropped.
        edited: whether someone edited the row by hand.
        as_written: the row's `content` when the stage wrote it; None for a row that was added by hand.
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
        """The fields that an edit can change, as JSON."""
        said = {"label": self.label, "status": self.status, "merged_into": self.merged_into}
        return json.dumps({**said, "raw_tags": sorted(self.raw_tags)}, ensure_ascii=False)

    def text(self) -> str:
        """The text that is embedded for the label: its most frequent raw tag, so that renaming the label by hand does
        not change which labels are similar to it."""
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
    """Whether a row was edited by hand: marked so, added, or different from what the stage wrote."""
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
    """The label that every row's tags get: itself, the label at the end of its merges, or None where that is dropped.

    A label that an edited row is merged into is kept, also where the stage would drop or merge it, and where it has no
    row of its own.

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
    """The label of every raw tag, None where the tag is dropped. Where an edited row and another one list the same
    tag, the edited row decides; where they have the same label (one was renamed by hand), the tags of both go where the
    edited row goes.

    Raises:
        InputError: merges that go in a circle.
    """
    ends = resolve(entries)
    rows = _by_label(entries)
    by_stage = {tag: ends[e.label] for e in entries if not e.edited for tag in e.raw_tags}
    edited = [e for e in rows.values() if e.edited]
    return by_stage | {e.label: ends[e.label] for e in edited} | {t: ends[e.label] for e in edited for t in e.raw_tags}


def map_hash(mapping: TagMap) -> str:
    """The sha256 of the map, in hexadecimal, for the run's record."""
    return hashlib.sha256(json.dumps(sorted(mapping.items()), ensure_ascii=False).encode()).hexdigest()


def group_tags(
    counts: Mapping[str, int], forms: Mapping[str, str], edited: Sequence[Entry], before: Iterable[Entry] = ()
) -> list[Entry]:
    """Rows for the raw tags of a pool: the edited ones with new counts, then one for every other normal form.

    A new spelling of a tag that an edited row lists goes where that row goes. Where several edited rows list spellings
    of the same normal form, or a tag was moved out of a row whose other tags nobody touched, someone has told them
    apart, and a new spelling gets a row of its own or goes with those that were left. A row that was renamed to the
    label of another one takes the spellings of that one too.

    Args:
        counts: raw tag to pool rows.
        forms: raw tag, or an edited row's tags and label, to normal form.
        edited: from `edited_entries`.
        before: the table as it was found; rows that were edited are passed over.
    """
    named = {entry.label: entry for entry in edited}
    # a row whose label an edited row has taken is one with it
    parted = (e for e in before if not (e.edited or e.label in named or (e.reason or "").startswith(_SAME_WORDS)))
    left = {tag for entry in parted for tag in entry.raw_tags}
    owner = {entry.label: entry for entry in edited} | {tag: entry for entry in edited for tag in entry.raw_tags}
    by_form: dict[str, set[str]] = {}
    for tag, entry in owner.items():
        by_form.setdefault(forms[tag], set()).add(entry.label)
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
        elif len(like) == 1 and not forced and not left & tags.keys():
            said = named[next(iter(like))]
            reason = f"{_SAME_WORDS} {said.label!r}, which was edited by hand"
            row = row.drop(reason) if said.status == DROPPED else row.merge(said.label, reason)
        rows.append(row)
    have = {row.label for row in rows}
    return rows + [Entry(label, reason="named by hand") for label in sorted(pinned - have)]


def sign(entry: Entry) -> Entry:
    """The row to write: `as_written` holds its content, so that a later edit is recognised by the difference."""
    return entry if entry.edited else replace(entry, as_written=entry.content())


def _by_label(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Rows by label; an edited row comes before the stage's own of the same label."""
    return {e.label: e for e in sorted(entries, key=lambda e: e.edited)}


def _renamed(rows: Mapping[str, Entry]) -> dict[str, str]:
    """For every label that was renamed by hand, its old name and its new one."""
    found = {}
    for entry in rows.values():
        if entry.edited and entry.as_written is not None:
            before = str(json.loads(entry.as_written)["label"])
            if before not in rows:
                found[before] = entry.label
    return found


def map_arrays(tags: pd.Series, mapping: TagMap) -> pd.Series:
    """The labels of each list of tags: each label once, in order of its first tag; null stays null.

    >>> map_arrays(pd.Series([["Py", "python", "rare"], None]), {"Py": "python", "python": "python", "rare": None})[0]
    ['python']
    """

    def labels(row: Iterable[str] | None) -> list[str] | None:
        if row is None:
            return None
        found = (mapping.get(tag) for tag in row)
        return list(dict.fromkeys(label for label in found if label is not None))

    return pd.Series([labels(row) for row in tags], index=tags.index, dtype=object)
