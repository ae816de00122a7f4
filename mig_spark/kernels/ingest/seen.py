"""What records of a pool look like, gathered record by record: their schemas and kinds by ingest's own reader, what
their keys could stand for, languages, and why records cannot be used."""

from __future__ import annotations

import heapq
import json
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mig_spark.kernels.ingest.arrays import Element, Fault
from mig_spark.kernels.ingest.chat import DECODER, Row
from mig_spark.kernels.ingest.languages import language_of
from mig_spark.kernels.ingest.names import DEFAULT_NAMES, TRAINER_KEYS, Names
from mig_spark.kernels.ingest.records import DEFAULT_LIMITS, Limits, Line
from mig_spark.kernels.ingest.rejects import Rejection
from mig_spark.kernels.ingest.staged import parse_item

#: Characters of a record that are kept as an example, and of a row's text that its language is told from.
_SHOWN, _READ = 200, 1_000
#: Texts above this are no names, ids or labels.
_SHORT = 100


@dataclass
class Key:
    """What the records have under one key.

    Attributes:
        records: how many have a value there.
        texts, numbers, lists: short texts; numbers, booleans aside; lists of short texts, not empty.
        whole: of the numbers, the integers.
        scores: of the numbers, those that could be a score: finite, from 0 on.
        values: hashes of the different texts and numbers.
    """

    records: int = 0
    texts: int = 0
    numbers: int = 0
    lists: int = 0
    whole: int = 0
    scores: int = 0
    values: set[int] = field(default_factory=set)

    def add(self, value: Any) -> None:
        """Look at one value, not null."""
        self.records += 1
        if isinstance(value, str) and len(value) <= _SHORT:
            self.texts += 1
            self.values.add(hash(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            self.numbers += 1
            self.whole += isinstance(value, int)
            self.scores += value >= 0 and (isinstance(value, int) or math.isfinite(value))
            self.values.add(hash(value))
        elif isinstance(value, list) and value and all(isinstance(v, str) and len(v) <= _SHORT for v in value):
            self.lists += 1


@dataclass
class Seen:
    """What was seen of the records of a pool.

    Attributes:
        names: which key has which role.
        limits: of one record.
        schema: `auto`, or the one schema of all records.
        keep: rows to keep in `sample`, at most.
        records: records looked at, and `size` characters of them.
        sample: rows drawn by the hash of their text.
        schemas, kinds, languages, sources: usable rows by each.
        rejected: unusable ones by reason, with the detail and the beginning of the first of each reason.
        keys: the keys of records that are objects.
        labels: rows by each label that they brought; the empty text stands for an empty list.
        labelled, scored: rows that brought labels, and a score (or quality and complexity).
        clashes: rows whose id an earlier row has with other content; ingest rejects all of both.
    """

    names: Names = DEFAULT_NAMES
    limits: Limits = DEFAULT_LIMITS
    schema: str = "auto"
    keep: int = 0
    records: int = 0
    size: int = 0
    schemas: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)
    keys: dict[str, Key] = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    labelled: int = 0
    scored: int = 0
    with_id: int = 0
    clashes: int = 0
    _ids: dict[str, str] = field(default_factory=dict)
    # a heap: the row whose hash is the greatest, as a number below 0, comes first
    _drawn: list[tuple[int, int, Row]] = field(default_factory=list)

    @property
    def sample(self) -> list[Row]:
        """The rows that were drawn."""
        return [row for _, _, row in self._drawn]

    @property
    def usable(self) -> int:
        """Records that are rows of the pool."""
        return sum(self.schemas.values())

    def add(self, item: Line | Element | Fault, source: str) -> None:
        """Look at one record of a file. `source`: what its row is from, where it says nothing."""
        outcome, raw = parse_item(item, schema=self.schema, names=self.names, limits=self.limits)
        self._add(outcome, raw, _value(item), source)

    def add_value(self, value: dict[str, Any], source: str) -> None:
        """Look at one row of a table, as the JSON that ingest makes of it."""
        text = json.dumps(value, ensure_ascii=False)
        outcome, raw = parse_item(Element(text, value), schema=self.schema, names=self.names, limits=self.limits)
        self._add(outcome, raw, value, source)

    def _add(self, outcome: Row | Rejection, raw: str, value: Any, source: str) -> None:
        self.records += 1
        self.size += len(raw)
        if isinstance(value, dict):
            for name, found in value.items():
                if found is not None:
                    self.keys.setdefault(name, Key()).add(found)
        if isinstance(outcome, Rejection):
            self.rejected[outcome.reason] += 1
            self.examples.setdefault(outcome.reason, (outcome.detail, raw[:_SHOWN]))
            return
        self.schemas[outcome.schema] += 1
        self.kinds[outcome.kind] += 1
        self.sources[outcome.source or source] += 1
        self.languages[language_of(_text(outcome))] += 1
        if self.keep:
            place = -int(outcome.text_hash[:16], 16)
            heapq.heappush(self._drawn, (place, self.records, outcome))
            if len(self._drawn) > self.keep:
                heapq.heappop(self._drawn)
        if outcome.id is not None:
            self.with_id += 1
            self.clashes += self._ids.setdefault(outcome.id, outcome.signature) != outcome.signature
        given = outcome.given
        if given is not None:
            self.labelled += given.labels is not None
            self.scored += given.score is not None
            self.labels.update(set(given.labels or [""]) if given.labels is not None else ())

    def could_be(self, role: str) -> list[str]:
        """Keys that no default name covers and that could have a role, by what is under them.

        Args:
            role: `id` (short and different in every record), `source` (a short text, few different ones), `labels`
                (lists of short texts) or `score` (numbers from 0 on), the last two in half of the records at least.
        """
        # what is trained on is none of these
        known = TRAINER_KEYS | self.names.aside
        return sorted(name for name, key in self.keys.items() if name not in known and self._could_be(role, key))

    def _could_be(self, role: str, key: Key) -> bool:
        if role == "id":
            return key.texts + key.whole == key.records == self.records == len(key.values) and self.records > 1
        if role == "source":
            return 0.9 * self.records <= key.texts == key.records and 1 < len(key.values) <= max(2, self.records // 20)
        if role == "labels":
            return 2 * key.lists >= self.records
        return 2 * key.scores >= self.records and key.scores == key.numbers == key.records and len(key.values) > 1


def _value(item: Line | Element | Fault) -> Any:
    """The record as a value; None where it is none."""
    if isinstance(item, Element):
        return item.value
    if isinstance(item, Fault):
        return None
    try:
        return DECODER.decode(item.text.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _text(row: Row) -> str:
    """The beginnings of what was asked and answered."""
    said = [content for role, content in row.messages if role in ("user", "assistant")]
    part = max(1, _READ // max(1, len(said)))
    return "\n".join(content[:part] for content in said)
