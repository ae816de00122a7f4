"""What the tests of the report share: an invented run, the same run full of hostile text, and a reader of pages."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np

from mig_spark.evaluation.evidence import Evidence, lines_of
from mig_spark.kernels.evaluation.measures import Measured
from mig_spark.kernels.selection.curve import sample_ranks
from mig_spark.report.data import (
    Community,
    Counts,
    Curve,
    Edge,
    EvidenceFacts,
    GraphFacts,
    Histogram,
    LabelNode,
    LengthFacts,
    RejectedExample,
    ReportData,
    RowExcerpt,
    ScoreFacts,
    Share,
)
from mig_spark.report.labels import label_facts

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "<a href='https://evil.example/'>x</a>'\" autofocus onfocus=alert(1) &lt;b&gt; <!-- \x00\u202e\u2028\ud800 %{x}"
)
_MEANT = ("engine", "rounds", "upper_bound", "random_objective")

TOPICS = """python|sql|unit testing|recursion|regular expressions|linear algebra|probability|geometry|word problems
chemistry|cell biology|astronomy|climate|world history|philosophy|ethics|economics|personal finance|tax|contract law
creative writing|poetry|dialogue|summarisation|translation|grammar|email|job applications|cooking|nutrition|fitness
gardening|travel planning|music theory|film|chess|board games|puzzles|logic|data analysis|spreadsheets|web design
machine learning|statistics|databases|networking|operating systems|compilers|rust|javascript"""
ASPECTS = (
    "explanation|step by step|debugging|comparison|advice|ideas|review|examples|planning|rewriting|definition|proof"
)
SOURCES = ("community-chat", "textbook-qa", "code-exercises", "translated-web", "synthetic-maths")

TURNS = (
    (
        "Write a SQL query that finds the second highest salary in each department.\nTies should count once.",
        "Use DENSE_RANK so that equals share a place:\n\nSELECT department, salary\nFROM (\n  SELECT department, "
        "salary,\n         DENSE_RANK() OVER (PARTITION BY department ORDER BY salary DESC) AS place\n  FROM staff\n) "
        "AS ranked\nWHERE place = 2;\n\nROW_NUMBER would give one of two equal top earners the second place.",
    ),
    (
        "Why does ice float on water? Explain it to a ten-year-old.",
        "When water freezes, its tiny parts hold hands in a pattern with gaps, like people standing in a ring. The "
        "ring takes more room than a crowd, so a piece of ice is lighter than the same amount of water, and it floats.",
    ),
    (
        "Prove that the square root of 2 is irrational.",
        "Suppose it were p/q in lowest terms. Then p² = 2q², so p is even, say p = 2r. Then 4r² = 2q², so q² = 2r² and "
        "q is even too. Both even contradicts lowest terms. Hence no such fraction exists.",
    ),
    (
        "My landlord keeps the deposit because of normal wear. What can I write to them?",
        "Keep it short and factual. Name the flat, the date you left and the amount; say that faded paint and worn "
        "carpet are ordinary wear, which a tenant does not pay for; ask for the deposit within fourteen days; and say "
        "what you will do if it does not come, such as going to the dispute service.",
    ),
    (
        "Plan three dinners for a week-night, vegetarian, under 30 minutes, that share ingredients.",
        "1. Chickpea and spinach curry with rice.\n2. Fried rice with egg, spinach and spring onion, from the rice "
        "left over.\n3. Flatbreads with crushed chickpeas, yoghurt and the rest of the spring onions.",
    ),
)
REJECTED = (("empty content", 118), ("duplicate id, different content", 64), ("broken JSON", 23), ("unknown role", 9))


def invented(*, rows: int = 4000, budget: int = 240, seed: int = 7) -> ReportData:
    """A whole report's data; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    topics = TOPICS.replace("\n", "|").split("|")
    names = [f"{topic}: {aspect}" for topic in topics for aspect in ASPECTS.split("|")]
    rng.shuffle(names)
    chance = 1 / np.arange(1, len(names) + 1) ** 1.05
    has = np.zeros((rows, len(names)))
    for row in has:
        row[rng.choice(len(names), size=rng.integers(1, 7), replace=False, p=chance / chance.sum())] = 1
    score = rng.gamma(6, 0.9, rows)
    source = rng.choice(len(SOURCES), size=rows, p=[0.46, 0.22, 0.17, 0.1, 0.05])
    score *= np.array([0.8, 1.2, 1.15, 0.85, 1.1])[source]
    order, gains, objective = _greedy(has * score[:, None], budget)
    _, _, random = _greedy(has * score[:, None], budget, order=rng.permutation(rows)[:budget])
    frequency, uses = has.sum(axis=0).astype(np.int64), has[order].sum(axis=0).astype(np.int64)
    first = np.where(uses > 0, has[order].argmax(axis=0) + 1, 0)
    ranks = sample_ranks(budget)
    points = sample_ranks(budget, 30)
    edges = np.linspace(0, float(np.quantile(score, 0.999)), 41)
    degrees, many = np.unique(rng.poisson(1.6, len(names)), return_counts=True)

    def excerpt(rank: int | None, i: int) -> RowExcerpt:
        labels = tuple(names[j] for j in np.flatnonzero(has[i]))
        counts = () if rank else tuple(int(uses[j]) for j in np.flatnonzero(has[i]))
        gain = float(gains[rank - 1]) if rank else None
        prompt, answer = TURNS[i % len(TURNS)]
        return RowExcerpt(f"{SOURCES[source[i]]}-{i:06d}", prompt, answer, labels, float(score[i]), SOURCES[source[i]],
                          rank, gain, counts)  # fmt: skip

    left = [i for i in np.argsort(-score) if i not in set(order.tolist())][:4]
    refused = sum(n for _, n in REJECTED)
    common = np.argsort(-frequency, kind="stable")[:300]
    # labels of one community are joined, and a few of others
    ends = rng.choice(len(common), (260, 2))
    ends[:, 1] = np.where(rng.random(260) < 0.9, ends[:, 0] + 11 * (ends[:, 1] % 5 - 2), ends[:, 1]).clip(0, 299)
    length = rng.lognormal(5.5, 1, rows)
    length_edges = 2.0 ** (np.arange(0, 25) / 2)

    def told(rank: int | None, i: int) -> RowExcerpt:
        row = excerpt(rank, i)
        n = len(row.labels)
        why = "it added 3.2, the first row 9.1, the last 1.2" if rank else "it came nearest at rank 12"
        return replace(row, gain=3.25, uses=tuple(range(n)), parts=tuple(3.25 / n for _ in range(n)), why=why)

    return ReportData(
        run_id="20260302-140512-7f3a",
        started_at="2 March 2026, 14:05 UTC",
        counts=Counts(read=rows + refused, rejected=REJECTED, pool=rows, annotated=rows, selected=budget),
        objective=Curve(ranks.astype(float), objective[ranks - 1]),
        gains=Curve(ranks.astype(float), gains[ranks - 1]),
        random=Curve(points.astype(float), random[points - 1]),
        labels=label_facts(names, frequency, uses, first, rows=rows, selected=budget),
        sources=tuple(
            Share(name, float((source == i).mean()), float((source[order] == i).mean()))
            for i, name in enumerate(SOURCES)
        ),
        scores=ScoreFacts(
            edges,
            np.histogram(np.minimum(score, edges[-1]), edges)[0].astype(float),
            np.histogram(np.minimum(score[order], edges[-1]), edges)[0].astype(float),
            float(np.median(score)),
            float(np.median(score[order])),
        ),
        lengths=LengthFacts(
            length_edges,
            np.histogram(length, length_edges)[0].astype(float),
            np.histogram(length[order], length_edges)[0].astype(float),
            {
                "answers": (float(length.mean()), float(length[order].mean())),
                "turns": (2.1, 2.3),
            },
            Histogram(
                length_edges,
                np.histogram(length / 3, length_edges)[0].astype(float),
                np.histogram(length[order] / 3, length_edges)[0].astype(float),
            ),
            Histogram(np.array([2.0, 3, 4, 5]), np.array([0.9, 0.0, 0.1]) * rows, np.array([0.8, 0, 0.2]) * budget),
        ),
        health={
            "rows": rows, "without_labels": 0, "labels_a_row": 3.5, "flags": {"refusal": 12, "echo": 0},
            "labels": {"p05": 1, "median": 3, "p95": 6},
            "asked": {"pool": rows + 16, "unanswered": 16, "requests": 5_000, "retries": 40, "unparsable": 25},
            "follows": {"answer_characters": 0.41, "turns": None, "labels": -0.02}, "sampled": rows,
        },
        graph=GraphFacts(
            len(names), int(degrees @ many) // 2, 1210, degrees.astype(float), many.astype(float),
            tuple(Edge(names[3 * i], names[3 * i + 1], 0.982 - 0.011 * i) for i in range(8)), len(names) // 3,
            len(names) // 2, tuple(Community(14 - i, 12 - i, tuple(names[6 * i : 6 * i + 6])) for i in range(8)),
            len(names) // 6,
            tuple(LabelNode(names[i], int(frequency[i]), int(uses[i]), int(k) % 11) for k, i in enumerate(common)),
            tuple(
                Edge(names[common[a]], names[common[b]], float(w), "similarity" if w > 0.8 else "cooccurrence")
                for (a, b), w in zip(ends.tolist(), rng.uniform(0.7, 1, len(ends)), strict=True) if a != b
            ),
        ),
        first=tuple(excerpt(r, int(order[r - 1])) for r in range(1, 7)),
        last=tuple(excerpt(r, int(order[r - 1])) for r in range(budget - 3, budget + 1)),
        passed_over=tuple(excerpt(None, int(i)) for i in left),
        browse=(
            *(told(r, int(order[r - 1])) for r in range(1, min(budget, 60) + 1)),
            *(told(None, int(i)) for i in [i for i in np.argsort(-score) if i not in set(order.tolist())][:30]),
        ),
        rejected_examples=(
            RejectedExample("ingest", "empty content", "turn 2 (assistant) is empty", "chat-00912", "chat.jsonl.gz",
                            '{"id": "chat-00912", "messages": [{"role": "user", "content": "Hello?"}, '
                            '{"role": "assistant", "content": ""}]}'),
            RejectedExample("ingest", "broken JSON", "line 4,101: expecting ',' delimiter at column 88", None,
                            "chat.jsonl.gz", '{"id": "chat-04101", "messages": [{"role": "user" "content": "Na'),
            RejectedExample("annotate", "score is NaN", None, "qa-77", "textbook.parquet", None),
        ),
        seconds={"session": 9.4, "ingest": 6.1, "annotate": 38.7, "graph": 5.2, "select": 4.9, "report": 3.0},
        certificate={
            "engine": "rounds", "rounds": 4, "evaluations": 61_930, "objective": float(objective[-1]),
            "upper_bound": float(objective[-1]) * 1.0234, "random_objective": float(random[-1]),
            "smallest_margin": 1.25e-5, "h_sha256": ["9b1c" * 16, "77ab" * 16, "0de1" * 16, "5c2f" * 16],
        },
        config={
            "pool": {"path": ["chat.jsonl.gz", "textbook.parquet"], "format": "auto", "schema": "auto", "columns": {}},
            "annotate": {"tagger": {"kind": "embedding", "top": 6, "max_tokens": 256}, "scorer": {"kind": "heuristic"}},
            "select": {"budget": budget, "gain": "gradient", "phi": {"kind": "pow", "a": 1e-6, "b": 0.8}},
            "spark": {"conf": {"spark.hadoop.fs.s3a.secret.key": "canary-4711"}},
            "seed": 0,
        },
        versions={"mig-spark": "0.1.0", "pyspark": "4.2.0", "delta-spark": "4.4.0", "model": "all-MiniLM-L6-v2"},
        tables={"annotated": 7, "label_edges": 3, "selection": 12},
        inputs={
            "pool": [
                {"kind": "disk_files", "name": "file:///data/chat.jsonl.gz", "bytes": 5_402_113, "files": [
                    {"path": "file:///data/chat.jsonl.gz", "bytes": 5_402_113, "modified_ms": 1_772_500_000_000,
                     "records": 9_000}]},
                {"kind": "parquet", "name": "file:///data/textbook/1.parquet", "bytes": 911_020, "files": [
                    {"path": f"file:///data/textbook/{k}.parquet", "bytes": 91_102, "modified_ms": 1_772_400_000_000}
                    for k in range(10)]},
                {"kind": "table", "name": "lake.curation.extra", "version": 41, "committed_ms": 1_772_300_000_000},
            ],
            "annotators": {"tagger": "embedding-3 all-MiniLM-L6-v2", "scorer": "heuristic-2"},
        },
        evidence=EvidenceFacts(invented_evidence(), "3 March 2026, 09:10 UTC", True),
    )  # fmt: skip


def invented_evidence(**better: float) -> Evidence:
    """What an evaluation might find; `better`, by strategy: how far ahead of random it is."""
    rng, lines = np.random.default_rng(4), []
    strata, names = np.arange(40) % 8, ("random", "mig", "as_long", "longest", "k_center")
    for share, rows in ((0.05, 100), (0.1, 200)):
        measured = {}
        for name in names:
            ahead = {"mig": 0.02, "longest": -0.2, **better}.get(name, 0.0)
            measured[name] = [
                Measured(int(30 + 20 * ahead) + run % 2, np.clip(0.4 + ahead + rng.normal(0, 0.05, 8), 0, 1),
                         np.clip(0.5 - ahead + rng.normal(0, 0.05, 40), 0, 2), 1.4 + ahead + rng.normal(0, 0.05),
                         1.1 + max(-9 * ahead, 0))
                for run in range(5)
            ]  # fmt: skip
        lines += lines_of(share, rows, measured, random="random", own="mig", asked_strata=strata, one_stratum=False)
    return Evidence(
        "mig", 2_000, 40, 4_000, "task", 8, "the prompts' spelling", 0.12, lines, dict.fromkeys(names, 0.5), {},
        ["selections are compared without select.quotas: a sample cannot keep to what is said of all rows"],
    )  # fmt: skip


def nothing_selected() -> ReportData:
    """The same pool with budget 0."""
    full = invented(rows=300, budget=20)
    used = full.labels
    return replace(
        full,
        counts=replace(full.counts, selected=0),
        objective=Curve(),
        gains=Curve(),
        random=Curve(),
        labels=replace(used, covered=0, random=0.0, curve=Curve(), random_curve=Curve()),
        first=(),
        last=(),
        passed_over=(),
        browse=(),
        certificate={"engine": "local", "objective": 0.0, "upper_bound": 0.0},
    )


def filled(node: Any, text: str) -> Any:
    """The same data with every text of it replaced; keys that mean something stay."""
    if isinstance(node, str):
        return text
    if isinstance(node, Mapping):
        return {f"{text} {k}" if k not in _MEANT else k: filled(v, text) for k, v in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(filled(v, text) for v in node)
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return dataclasses.replace(
            node, **{f.name: filled(getattr(node, f.name), text) for f in dataclasses.fields(node)}
        )
    return node


class Tags(HTMLParser):
    """The elements and attribute names of a page in order, its links, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def figures(self) -> list[dict[str, Any]]:
        def refuse(word: str) -> Any:
            raise AssertionError(f"{word} is not JSON")

        return json.loads(self.scripts[0], parse_constant=refuse)


def _greedy(
    v: np.ndarray, budget: int, *, order: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, gains and objectives of the greedy over rows `v` (or of a given order), without a label graph."""
    x, taken, gains, objective = np.zeros(v.shape[1]), [], [], []
    open_ = np.ones(len(v), dtype=bool)
    for step in range(budget):
        gain = np.where(open_, v @ (0.8 * (x + 1e-6) ** -0.2), -np.inf)
        i = int(order[step]) if order is not None else int(gain.argmax())
        open_[i] = False
        x += v[i]
        taken.append(i)
        gains.append(gain[i])
        objective.append(((x + 1e-6) ** 0.8).sum())
    return np.array(taken), np.array(gains), np.array(objective)
