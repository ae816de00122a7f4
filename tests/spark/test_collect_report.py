"""Collecting a report from real Delta tables: every number against the same thing counted in plain Python."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from mig_spark.config import OutputConfig
from mig_spark.contracts import LABEL_EDGES, LABELS, POOL, REJECTED, SELECTION, VOCABULARY, Table
from mig_spark.errors import InputError
from mig_spark.lakehouse.tables import Store
from mig_spark.report import collect_report_data, render_report
from mig_spark.report.before_after import MOST_TURNS, SCORE_BINS, SOURCES
from mig_spark.report.excerpts import RowsToRead, rejected_examples, rows_to_read

N, K = 60, 20
LONG = "4711 " * 2000


def test_collects_what_the_tables_hold(spark: SparkSession, tmp_path: Path) -> None:
    store = Store(spark, OutputConfig(path=str(tmp_path)))
    rows = _pool_rows()
    annotated = spark.createDataFrame(
        [(r["id"], r["labels"], r["score"], r["source"], r["long"], r["turns"], r["tokens"]) for r in rows],
        "id string, labels array<string>, score double, source string, answer_characters bigint, turns int, tokens int",
    )
    with pytest.raises(InputError, match="selection"):
        collect_report_data(store, annotated, {"run_id": "r1"})
    chosen = rows[::3][:K]
    _write_tables(spark, store, rows, chosen)
    run = _run()

    data = collect_report_data(store, annotated, run)

    assert data.started_at == "2 March 2026, 14:05 UTC"
    assert (data.counts.read, data.counts.pool, data.counts.annotated, data.counts.selected) == (70, N, N, K)
    assert data.counts.rejected == (("empty content", 7), ("broken JSON", 3))

    assert list(data.objective.rank) == list(range(1, K + 1))
    assert list(data.objective.value) == [10.0 * r for r in range(1, K + 1)]
    assert list(data.gains.value) == [1.0 / r for r in range(1, K + 1)]
    assert (list(data.random.rank), list(data.random.value)) == ([1, 20], [4.0, 80.0])

    frequency = Counter(v for r in rows for v in r["labels"])
    uses = Counter(v for r in chosen for v in r["labels"])
    assert data.labels.used == len(frequency)
    assert data.labels.covered == len(uses)
    assert list(data.labels.curve.value) == [len({v for r in chosen[:k] for v in r["labels"]}) for k in range(1, K + 1)]
    for share in data.labels.top:
        assert (share.pool, share.selection) == (frequency[share.name] / N, uses[share.name] / K)

    before, after = (Counter(r["source"] or "unknown" for r in part) for part in (rows, chosen))
    shown, (rest,) = data.sources[:SOURCES], data.sources[SOURCES:]
    assert {s.name: (s.pool, s.selection) for s in shown} == {
        s.name: (before[s.name] / N, after[s.name] / K) for s in shown
    }
    assert rest.name == "all others"
    # also those that are none of the most frequent ones
    assert {s.name for s in data.missed} == {name for name, n in before.items() if n >= N / 100 and not after[name]}
    assert rest.pool == pytest.approx(1 - sum(s.pool for s in shown))
    assert rest.selection == pytest.approx(1 - sum(s.selection for s in shown))

    german = [[r for r in part if not r["long"] % 3] for part in (rows, chosen)]
    assert [(s.name, s.pool, s.selection) for s in data.languages] == [
        (name, pytest.approx(pool), pytest.approx(selection))
        for name, pool, selection in sorted(
            [
                ("German", len(german[0]) / N, len(german[1]) / K),
                ("unknown", 1 - len(german[0]) / N, 1 - len(german[1]) / K),
            ],
            key=lambda share: -share[1],
        )
    ]
    vocabulary = data.vocabulary
    assert (vocabulary.tags, vocabulary.labels) == (7, 4)
    assert (vocabulary.kept, vocabulary.merged, vocabulary.dropped) == (1, 2, 1)
    assert [(m.label, m.into, m.rows) for m in vocabulary.merges] == [("b", "a", 9), ("c", "a", 2)]
    assert [(m.label, m.rows, m.reason) for m in vocabulary.drops] == [("d", 1, "rare")]

    scores = np.array([r["score"] for r in rows])
    assert data.scores.edges.size == SCORE_BINS + 1
    assert data.scores.edges[-1] == scores.max()
    assert list(data.scores.pool) == list(np.histogram(scores, data.scores.edges)[0])
    assert list(data.scores.selection) == list(np.histogram([r["score"] for r in chosen], data.scores.edges)[0])
    assert data.scores.pool_median == sorted(scores)[N // 2 - 1]

    lengths = data.lengths
    for part, of in ((lengths.pool, rows), (lengths.selection, chosen)):
        assert list(part) == list(np.histogram([max(r["long"], 1) for r in of], lengths.edges)[0])
        assert sum(part) == len(of)
    counted = [[r for r in of if r["tokens"] is not None] for of in (rows, chosen)]
    for part, of in zip((lengths.tokens.pool, lengths.tokens.selection), counted, strict=True):
        assert list(part) == list(np.histogram([r["tokens"] for r in of], lengths.tokens.edges)[0])
        assert sum(part) == len(of) > 0
    for part, of in ((lengths.turns.pool, rows), (lengths.turns.selection, chosen)):
        told = Counter(min(r["turns"], MOST_TURNS) for r in of)
        assert list(part) == [told[k] for k in range(2, MOST_TURNS + 1)]
    assert list(lengths.turns.edges) == list(range(2, MOST_TURNS + 2))
    assert lengths.means == {
        name: pytest.approx(tuple(np.mean([r[key] for r in of]) for of in both))
        for name, key, both in (
            ("answers", "long", (rows, chosen)), ("turns", "turns", (rows, chosen)), ("tokens", "tokens", counted)
        )
    }  # fmt: skip

    assert [(n.name, n.rows, n.selected) for n in data.graph.drawn] == [
        (v, n, uses[v]) for v, n in sorted(frequency.items(), key=lambda p: (-p[1], p[0]))
    ]
    assert [(e.src, e.dst, e.kind) for e in data.graph.lines] == [
        ("l1", "l3", "similarity"), ("l0", "l2", "similarity"), ("l0", "l1", "cooccurrence")
    ]  # fmt: skip
    only = collect_report_data(store, annotated, {**run, "config": {"graph": {"edges": "similarity"}}}).graph
    assert ({e.kind for e in only.lines}, len(only.lines)) == ({"similarity"}, 2), "the others carry nothing"
    assert (data.graph.aside, only.aside, only.cooccurrences) == ("", "cooccurrence", 1)
    assert data.graph.component_labels == 2
    assert (data.graph.labels, data.graph.edges, data.graph.cooccurrences) == (len(frequency), 2, 1)
    assert [(e.src, e.dst, e.weight) for e in data.graph.strongest] == [("l1", "l3", 0.95), ("l0", "l2", 0.9)]
    assert data.graph.degrees @ data.graph.degree_labels == 4
    assert (data.graph.components, data.graph.communities) == (len(frequency) - 2, len(frequency) - 2)
    pairs = sorted((("l0", "l2"), ("l1", "l3")), key=lambda p: (-max(frequency[v] for v in p), p))
    assert [(c.size, c.covered, sorted(c.names)) for c in data.graph.largest] == [
        (2, sum(v in uses for v in pair), list(pair)) for pair in pairs
    ]

    assert [r.rank for r in (*data.first, *data.last)] == [1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 20]
    top = data.first[0]
    assert (top.id, top.prompt, top.gain, list(top.labels)) == (
        chosen[0]["id"],
        f"Was ist das und wie wird es mit {chosen[0]['id']} gemacht",
        1.0,
        chosen[0]["labels"],
    )
    assert top.answer.startswith("4711 4711")
    assert len(top.answer) <= 1000
    assert [r.rank for r in data.browse[:K]] == list(range(1, K + 1))
    assert {r.id for r in data.browse[K:]} == {r["id"] for r in rows if r not in chosen}
    left = sorted((r for r in rows if r not in chosen), key=lambda r: (-r["score"], r["id"]))[:5]
    assert [r.id for r in data.passed_over] == [r["id"] for r in left]
    assert [r.uses for r in data.passed_over] == [tuple(uses[v] for v in r["labels"]) for r in left]

    assert [(e.reason, e.detail) for e in data.rejected_examples] == [
        ("empty content", "turn 0"), ("empty content", "turn 6"), ("broken JSON", "line 0"), ("broken JSON", "line 2"),
    ]  # fmt: skip
    assert data.seconds == {"select": 1.5}, "RUNS holds JSON text"
    page = render_report(data)
    assert "certified exact" in page
    assert "another run" not in page

    uses = pd.DataFrame({"label": list(uses), "uses": list(uses.values())})
    bare = rows_to_read(store, annotated, store.read(SELECTION), K, N, uses, excerpts="ids")
    assert [r.id for r in bare.browse] == [r.id for r in data.browse]
    assert {(r.prompt, r.answer) for r in (*bare.first, *bare.last, *bare.passed_over, *bare.browse)} == {(None, None)}
    counts, examples = rejected_examples(store, "r1", excerpts="ids")
    assert {(e.detail, e.raw) for e in examples} == {(None, None)}
    assert [e.reason for e in examples] == [e.reason for e in data.rejected_examples]
    assert rows_to_read(store, annotated, store.read(SELECTION), K, N, uses, excerpts="none") == RowsToRead()
    assert rejected_examples(store, "r1", excerpts="none") == (counts, ())

    _nothing_selected(spark, store, annotated)


def _nothing_selected(spark: SparkSession, store: Store, annotated: DataFrame) -> None:
    """Budget 0, and a run that says nothing of itself: counted from the tables."""
    _write(store, spark, SELECTION, [])
    data = collect_report_data(
        store, annotated.withColumn("score", sf.lit(0.1) + sf.lit(0.2)), {"counts": {"read": None}}
    )
    assert (data.scores.pool[0], data.scores.pool.sum()) == (N, N), "all scores the same"
    assert data.counts.selected == 0
    assert data.counts.pool == N
    assert dict(data.counts.rejected) == {"empty content": 7, "broken JSON": 3, "another run": 1}
    assert data.objective.rank.size == 0
    assert data.labels.covered == 0
    assert data.passed_over == ()
    assert "No row was selected" in render_report(data)


def _pool_rows() -> list[dict[str, Any]]:
    rows = []
    for i in range(N):
        source = None if i % 11 == 0 else f"source {i % 14:02d}"
        labels = sorted({f"l{i % 4}", f"l{i % 7}", f"rare {i // 6}"})
        lengths = {"long": (i * i * 37) % 1500, "turns": 2 + i % 3 + 12 * (i % 5 == 1)}
        lengths["tokens"] = None if i % 7 == 3 else 5 + i
        rows.append({"id": f"id-{i:03d}", "labels": labels, "score": 0.25 * (i % 13), "source": source, **lengths})
    return rows


def _write_tables(spark: SparkSession, store: Store, rows: list[dict[str, Any]], chosen: list[dict[str, Any]]) -> None:
    pool = []
    for r in rows:
        turns = [
            ("system", "be kind"),
            ("user", f"  ask {r['id']}" if r["long"] % 3 else f"Was ist das und wie wird es mit {r['id']} gemacht"),
            ("assistant", "1"),
            ("user", "2"),
            ("assistant", LONG),
        ]
        pool.append((r["id"], "h" + r["id"], turns, r["source"], "messages", None, json.dumps(r)))
    _write(store, spark, POOL, pool)
    selection = [
        (i, r["id"], 1.0 / i, 10.0 * i, r["labels"], r["score"], r["source"], "r1") for i, r in enumerate(chosen, 1)
    ]
    _write(store, spark, SELECTION, selection)
    frequency = Counter(v for r in rows for v in r["labels"])
    linked = ("l0", "l1", "l2", "l3")
    # l0 with l2 and l1 with l3; the others alone
    group = {"l2": "l0", "l3": "l1"}
    names = sorted(frequency)
    labels = [
        (i, v, frequency[v], int(v in linked), 1.0, *[names.index(group.get(v, v))] * 2, None, None, None, None)
        for i, v in enumerate(names)
    ]
    _write(store, spark, LABELS, labels)
    _write(store, spark, LABEL_EDGES, [
        ("l0", "l2", "similarity", 0.9, None), ("l1", "l3", "similarity", 0.95, None),
        ("l0", "l1", "cooccurrence", 0.4, 12), ("l0", "l0", "propagation", 0.5, None),
        ("l0", "l2", "propagation", 0.5, None),
    ])  # fmt: skip
    _write(store, spark, VOCABULARY, [
        ("a", "kept", None, 40, [("a", 40), ("A", 2)]), ("b", "merged", "a", 9, [("b", 9), ("bs", 1)], "same stem"),
        ("c", "merged", "a", 2, [("c", 2), ("cc", 1)], "similar"), ("d", "dropped", None, 1, [("d", 1)], "rare"),
    ])  # fmt: skip
    rejected = [("ingest", "empty content", f"turn {i}", None, "a.jsonl", "{}", "r1") for i in range(7)]
    rejected += [("ingest", "broken JSON", f"line {i}", None, "a.jsonl", '{"x', "r1") for i in range(3)]
    rejected += [("ingest", "another run", None, None, "a.jsonl", "{}", "r0")]
    _write(store, spark, REJECTED, rejected)


def _write(store: Store, spark: SparkSession, table: Table, rows: list[Any]) -> None:
    whole = [(*row, *[None] * (len(table.columns) - len(row))) for row in rows]
    store.write(table, spark.createDataFrame(whole, table.ddl()))


def _run() -> dict[str, Any]:
    return {
        "run_id": "r1",
        "started_at": dt.datetime(2026, 3, 2, 15, 5, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        "counts": {"read": 70, "rejected": {"broken JSON": 3, "empty content": 7}, "pool": N, "annotated": N},
        "seconds": '{"select": 1.5}',
        "certificate": {"engine": "local", "rounds": 1, "objective": 200.0, "upper_bound": 210.0},
        "config": {"select": {"budget": K}, "vocabulary": {"enabled": True}},
        "random_curve": [{"rank": 20, "objective": 80.0}, {"rank": 1, "objective": 4.0}],
    }
