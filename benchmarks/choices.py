"""Thresholds of the label graph, values of `phi.b` and kinds of propagation, on pools whose tasks are known: by what no
selection optimises.

    python benchmarks/choices.py --part judged
    python benchmarks/choices.py --part judged --propagation
    python benchmarks/choices.py --vocabulary
    python benchmarks/choices.py --frontier
    python benchmarks/choices.py --target

The pools, the measures and the split are those of `quality.py`. `auto` is what the package chooses; docs/evaluation.md
has the tables.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import quality
import quality_pools

#: Random parts of the bundled vocabulary: how many labels, and how many draws of each.
SIZES, PARTS = (100, 200, 400, 600, 800), 20
THRESHOLDS = (None, 0.5, 0.6, 0.7, 0.75, 0.85, 0.9)
BALANCES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def effective_labels(labels: quality.Labels, picked: quality.Ints) -> float:
    """Hill number of order 1 of the labels of some rows."""
    from mig_spark.kernels.selection import frontier

    return frontier.effective_labels(np.unique([name for k in picked for name in labels[k]], return_inverse=True)[1])


def parts_of_the_vocabulary() -> None:
    """What `auto` would choose from parts of the bundled vocabulary, which mean what they meant in the whole."""
    from mig_spark.config.base import DEFAULT_MODEL
    from mig_spark.data import load_vocabulary
    from mig_spark.kernels.annotation.embedding import embed_texts, load_model
    from mig_spark.kernels.labels import threshold

    threshold.LEAST_LABELS = 0
    names = sorted(load_vocabulary())
    vectors, rng = embed_texts(names, load_model(DEFAULT_MODEL))[0], np.random.default_rng(0)
    print("| labels | auto: least, median, most | random pairs |")
    print("| --- | --- | --- |")
    for size in (*SIZES, len(names)):
        drawn = [rng.choice(len(names), size, replace=False) for _ in range(PARTS)]
        found = [threshold.choose_threshold([names[k] for k in some], vectors[some], seed=0, default=0.0)[0]
                 for some in drawn]  # fmt: skip
        chosen = [c.threshold for c in found]
        print(f"| {size} | {min(chosen):.2f}, {np.median(chosen):.2f}, {max(chosen):.2f} "
              f"| {np.median([c.null for c in found]):.2f} |")  # fmt: skip


def frontier_of_samples(rows: int, budget: int) -> None:
    """The frontier that `phi.b: auto` chooses on, by samples of a generated pool and by the whole of it."""
    import tempfile
    import time

    import pools
    import pyarrow.parquet as pq

    from mig_spark.config import SelectConfig
    from mig_spark.kernels.labels.propagation import build_propagation
    from mig_spark.kernels.selection import frontier, trials
    from mig_spark.kernels.selection.objective import Phi
    from mig_spark.selection.arrow_rows import ArrowRows

    trials.LEAST_COVER, config = 0.0, SelectConfig()
    with tempfile.TemporaryDirectory() as folder:
        made = pools.make_pool(Path(folder), rows)
        packed = ArrowRows.of(pq.read_table(made.path), config).pack(
            pools.label_names(made.labels).to_pylist(), config
        )  # fmt: skip
    p = build_propagation(made.labels, *made.edges, prop_weight=1.0, normalize="receiver")
    print(
        "| rows tried on | picks x labels a row / labels | seconds | chosen | mean score by b | effective labels by b |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    for share in (0.02, 0.05, 0.1, 0.25, 0.5, 1.0):
        trials.SAMPLED_ROWS, began = round(share * rows), time.perf_counter()
        found = frontier.choose_balance(
            packed, p, lambda b: Phi.power(made.labels, b=b), budget=budget, score_share=0.95, seed=0, default=0.8
        )  # fmt: skip
        seconds = time.perf_counter() - began
        scores = ", ".join(f"{point.mean_score:.2f}" for point in found.frontier)
        labels = ", ".join(f"{point.effective_labels:.0f}" for point in found.frontier)
        print(f"| {found.rows:,} | {found.picks * found.labels_a_row / found.labels:.1f} | {seconds:.1f} | {found.b} "
              f"| {scores} | {labels} |", flush=True)  # fmt: skip


def _told(selection: Any, of: str) -> Any:
    """What a selection's certificate says of a choice that was left to it."""
    told = getattr(selection.certificate, of)
    assert told is not None, "it was asked for"
    return told


def targets_of_a_pool(rows: int, budget: int) -> None:
    """How near `target` comes to shares of a generated pool, and which power of the number of labels `norm: auto`
    takes."""
    import tempfile

    import pools
    import pyarrow.parquet as pq

    from mig_spark import select

    with tempfile.TemporaryDirectory() as folder:
        made = pools.make_pool(Path(folder), rows)
        table = pq.read_table(made.path)
    names = pools.label_names(made.labels).to_pylist()
    edges = [(names[i], names[j], float(w)) for i, j, w in zip(*made.edges, strict=True)]
    print("| b | tau | attempts: distance (mean score) | rows tried on | kept | selected |")
    print("| --- | --- | --- | --- | --- | --- |")
    for b in (0.8, 0.5):
        for tau in (1.0, 0.5, 0.0):
            found = select(table, budget, edges=edges, phi={"b": b}, target={"tau": tau}, upper_bound=False)
            told = _told(found, "target")
            tried = ", ".join(f"{a['name']} {a['distance']:.3f} ({a['mean_score']:.1f})" for a in told["attempts"])
            print(f"| {b} | {tau:g} | {tried} | {told['rows']:,} | {told['kept']} | {told['distance']:.3f} |",
                  flush=True)  # fmt: skip
    told = _told(select(table, budget // 2, edges=edges, norm="auto", upper_bound=False), "norm")
    tried = ", ".join(f"{p['gamma']:g}: {p['labels_a_row']:.2f} ({p['mean_score']:.1f})" for p in told["points"])
    print(f"\nnorm: auto, budget {budget // 2:,}, {told['labels_a_row']:.2f} labels a row in the pool; labels a row "
          f"(mean score) by power: {tried}")  # fmt: skip


def main() -> None:
    from mig_spark.config.base import DEFAULT_MODEL
    from mig_spark.kernels.annotation.embedding import embed_texts, load_model
    from mig_spark.kernels.annotation.group_names import is_group
    from mig_spark.kernels.labels.similarity import similarity_edges
    from mig_spark.kernels.labels.threshold import choose_threshold

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quality_pools.add_pool_arguments(parser)
    parser.add_argument("--propagation", action="store_true", help="only: mig and invariant, by threshold")
    parser.add_argument("--vocabulary", action="store_true", help="only: parts of the bundled vocabulary")
    parser.add_argument("--frontier", action="store_true", help="only: phi.b on samples of a generated pool")
    parser.add_argument("--target", action="store_true", help="only: target and norm on a generated pool")
    parser.add_argument("--rows", type=int, default=100_000, help="of --frontier, --target: rows of the generated pool")
    parser.add_argument("--budget", type=int, default=10_000, help="of --frontier, --target: rows to select of it")
    args = parser.parse_args()
    if args.target:
        targets_of_a_pool(args.rows, args.budget)
        return
    if args.frontier:
        frontier_of_samples(args.rows, args.budget)
        return
    if args.vocabulary:
        parts_of_the_vocabulary()
        return
    if absent := quality_pools.missing(args.data):
        print(f"nothing measured: {', '.join(absent)} not in {args.data}; --data names the folder", file=sys.stderr)
        return
    rows, asked = quality_pools.split(
        quality_pools.read_rows(args.data), args.part, pool=args.pool, queries=args.queries
    )
    pool = quality.make_pool(rows, asked, quality.by_tfidf(rows, asked))
    labels, scores = quality.tagged("distilled", rows), quality.scored(rows)
    # as in the label graph, groups of requests have no edges
    names = sorted({name for found in labels for name in found if not is_group(name)})
    vectors = embed_texts(names, load_model(DEFAULT_MODEL))[0]
    chosen, _ = choose_threshold(names, vectors, seed=0, default=0.75)
    print(f"{len(rows):,} rows of {len(np.unique(pool.tasks))} tasks (part {args.part}), {len(names)} labels, "
          f"{np.mean([len(found) for found in labels]):.2f} a row; graph.threshold: auto is {chosen.threshold:g}: "
          f"components {chosen.components}, random pairs {chosen.null}, variants {chosen.variants}\n")  # fmt: skip

    def edges(threshold: float | None) -> quality.Edges:
        if threshold is None:
            return []
        found = similarity_edges(vectors, threshold)
        return [(names[i], names[j], w) for i, j, w in zip(*(part.tolist() for part in found), strict=True)]

    equal = np.ones(len(rows))
    for share in quality.BUDGETS:
        budget, rng = max(1, round(share * len(rows))), np.random.default_rng(0)
        random = [quality.measure(pool, rng.choice(len(rows), budget, replace=False)) for _ in range(args.draws)]
        print(f"\nBudget {share:.0%}, {budget} rows\n")
        print("| selection | tasks kept | of random's | nearest is of the own task | beside random (95%) "
              "| answer length / pool's | mean score | effective labels |")  # fmt: skip
        print("| --- " * 8 + "|")
        print(quality.line("random", random, random))
        tried = dict.fromkeys([*THRESHOLDS, chosen.threshold])
        ways: list[tuple[str, Any, dict[str, Any]]]
        ways = [(f"threshold {t}{' (auto)' if t == chosen.threshold else ''}", edges(t), {}) for t in tried]
        ways += [(f"b {b}", edges(0.75), {"phi": {"b": b}}) for b in BALANCES]
        ways += [("all of auto", edges(chosen.threshold), {"phi": {"b": "auto"}, "norm": "auto"})]
        if args.propagation:
            ways = [(f"{kind}, threshold {t}", edges(t), {"propagation": kind}) for t in THRESHOLDS[1:]
                    for kind in ("mig", "invariant")]  # fmt: skip
        for how, given in (("heuristic score", scores), ("all scores equal", equal)):
            for name, graph, options in ways:
                several = [quality.mig(labels, given, budget, graph, order, **options) for order in range(2)]
                line = quality.line(f"{name}, {how}", [quality.measure(pool, picked) for picked in several], random)
                print(f"{line} {given[several[0]].mean():.4f} | {effective_labels(labels, several[0]):.1f} |",
                      flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
