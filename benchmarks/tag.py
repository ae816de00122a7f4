"""How fast rows are tagged through Spark, beside the same model called directly, in one run.

    python benchmarks/tag.py [--rows 2000] [--fit 0] [--times 5] [--data ../shared/data] [--repeat 2] [--json]

Prints rows a second of `embedding`, as it comes, with larger batches and in bfloat16, and of `distilled` (directly in
one process with all cores; through Spark with one worker a core), on the same rows, and how far the labels that rows
get, without groups of requests, agree with those of the first (mean Jaccard, and rows with the same labels). With
`--fit`, `distilled` is fitted on so many other rows of the data instead of the bundled sample. Through Spark,
`distilled` goes over the rows `--times` times in one job, since it is through with them before a job has well begun.
Models are loaded and warm before a clock starts. Quote the ratios: seconds are those of this machine at this moment.
Where the data folder is not there, the bundled sample is repeated.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.pop(0)

import argparse
import gzip
import itertools
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mig_spark.annotation.annotator import Among
    from mig_spark.kernels.annotation.annotators import Step

Row = list[tuple[str, str]]
#: file, the keys that make the question, the key of the answer
FILES = (
    ("t0_tasks.jsonl.gz", ("prompt",), "completion"),
    ("gsm8k_train.jsonl.gz", ("question",), "answer"),
    ("codegen_instruct.json.gz", ("instruction", "input"), "response"),
    ("alpaca_en_demo.json.gz", ("instruction", "input"), "output"),
)


def read_rows(folder: Path, count: int) -> tuple[list[Row], str]:
    """`count` rows, the files in turn, evenly spread over each; and what they are."""
    if not all((folder / name).is_file() for name, _, _ in FILES):
        return _bundled(count), "bundled sample"
    parts = []
    for name, asked, answered in FILES:
        with gzip.open(folder / name, "rt", encoding="utf-8", newline="\n") as f:
            items = json.load(f) if name.endswith(".json.gz") else [json.loads(line) for line in f]
        step = max(1, len(items) // (count // len(FILES) + 1))
        parts.append(
            [
                [("user", "\n".join(item[key] for key in asked if item[key])), ("assistant", item[answered])]
                for item in items[::step]
            ]
        )
    mixed = [row for rows in itertools.zip_longest(*parts) for row in rows if row is not None]
    return mixed[:count], str(folder)


def _bundled(count: int) -> list[Row]:
    text = (resources.files("mig_spark") / "data" / "sample" / "tasks.json").read_text(encoding="utf-8")
    found: list[Row] = [
        [("user", f"{item['instruction']}\n{item.get('input') or ''}"), ("assistant", item["output"])]
        for item in json.loads(text)
    ]
    return list(itertools.islice(itertools.cycle(found), count))


def best(run: Callable[[], Any], repeat: int) -> tuple[float, Any]:
    """The shortest of some runs, after one that warms up."""
    seconds, result = [], None
    for _ in range(repeat):
        started = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - started)
    return min(seconds), result


def agreement(one: Sequence[Sequence[str]], two: Sequence[Sequence[str]]) -> float:
    both = [(set(a), set(b)) for a, b in zip(one, two, strict=True)]
    return sum(len(a & b) / len(a | b) if a | b else 1.0 for a, b in both) / len(both)


def same_labels(one: Sequence[Sequence[str]], two: Sequence[Sequence[str]]) -> float:
    """The share of rows with the same labels."""
    return sum(set(a) == set(b) for a, b in zip(one, two, strict=True)) / len(one)


def chosen(labels: list[list[str]], among: Among | None) -> list[list[str]]:
    """The labels that rows get of those offered, by the whole of these rows, as a run's pass over the pool chooses."""
    import pyarrow as pa

    from mig_spark.kernels.annotation.hubs import choose_labels, places_back

    if among is None:
        return labels
    counts = Counter(label for found in labels for label in found)
    offered = pa.array(labels, pa.list_(pa.string()))
    return choose_labels(offered, places_back(counts, among.strength), among.top).to_pylist()


def direct(step: Step, rows: list[Row], cores: int, repeat: int) -> tuple[float, list[list[str]]]:
    """The kernel called in this process; torch uses all cores."""
    import pyarrow as pa

    messages = [[{"role": role, "content": text} for role, text in row] for row in rows]
    batch = pa.RecordBatch.from_pylist([{"messages": m} for m in messages])
    step = replace(step, parameters={**step.parameters, "threads": cores})
    step.run(batch.slice(0, 64))
    seconds, made = best(lambda: step.run(batch), repeat)
    return seconds, made["labels"].to_pylist()


def write_others(folder: Path, count: int, rows: list[Row], file: Path) -> str:
    """`count` rows of the data that are not among `rows`, as a file to fit on."""
    known = {str(row) for row in rows}
    others = [row for row in read_rows(folder, 2 * (count + len(rows)))[0] if str(row) not in known]
    random.Random(0).shuffle(others)
    with file.open("w", encoding="utf-8") as f:
        for row in others[:count]:
            f.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in row]}) + "\n")
    return str(file)


def through_spark(spark: Any, config: Any, rows: list[Row], cores: int, repeat: int) -> float:
    """Seconds of `tag_rows` over a DataFrame with one worker a core, to nowhere."""
    from mig_spark.annotation.annotators import tag_rows

    df = spark.createDataFrame(
        [(k, row) for k, row in enumerate(rows)], "n int, messages array<struct<role:string,content:string>>"
    )
    df = df.repartition(2 * cores, "n").cache()
    df.count()
    # every worker loads its model now; tasks of a stage run at the same time, so each worker gets some
    tag_rows(df.limit(64 * cores).repartition(2 * cores), config).write.format("noop").mode("overwrite").save()
    tagged = tag_rows(df, config)
    seconds, _ = best(lambda: tagged.write.format("noop").mode("overwrite").save(), repeat)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--fit", type=int, default=0)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    from mig_spark.annotation.annotators import make_tagger
    from mig_spark.annotation.taggers.distilled import DistilledTagger
    from mig_spark.annotation.taggers.embedding import EmbeddingTagger
    from mig_spark.config import SparkConfig
    from mig_spark.lakehouse.session import get_session

    rows, source = read_rows(args.data, args.rows)
    session = get_session(SparkConfig(master=f"local[{args.cores}]"), app_name="mig-spark tag benchmark")
    result: dict[str, Any] = {"rows": len(rows), "data": source, "cores": args.cores}
    labels = {}
    scratch = tempfile.TemporaryDirectory()
    sample = write_others(args.data, args.fit, rows, Path(scratch.name) / "rows.jsonl") if args.fit else "builtin"
    result["fitted_on"] = f"{args.fit} other rows" if args.fit else "the bundled sample"
    taggers: dict[str, EmbeddingTagger | DistilledTagger] = {
        "embedding": EmbeddingTagger(),
        "embedding, 8,192 tokens a batch": EmbeddingTagger(batch_tokens=8192),
        "embedding, bfloat16": EmbeddingTagger(dtype="bfloat16"),
        "distilled": DistilledTagger(sample=sample),
    }
    for name, config in taggers.items():
        made = make_tagger(config, session.spark)
        assert made.step is not None, "these kinds have a kernel"
        seconds, offered = direct(made.step, rows, args.cores, args.repeat)
        labels[name] = chosen(offered, made.among)
        times = args.times if name == "distilled" else 1
        spark_seconds = through_spark(session.spark, config, rows * times, args.cores, args.repeat) / times
        result[name] = {
            "direct_rows_per_second": round(len(rows) / seconds, 1),
            "spark_rows_per_second": round(len(rows) / spark_seconds, 1),
            "spark_of_direct": round(seconds / spark_seconds, 3),
            "agreement": round(agreement(labels["embedding"], labels[name]), 3),
            "same": round(
                sum(set(a) == set(b) for a, b in zip(labels["embedding"], labels[name], strict=True)) / len(rows), 3
            ),
        }
    session.close()
    scratch.cleanup()
    if args.json:
        print(json.dumps(result))
        return
    print(f"{result['rows']} rows of {source}, {args.cores} cores; distilled is fitted on {result['fitted_on']}\n")
    print("| tagger | directly, rows/s | through Spark, rows/s | Spark / direct | directly, times embedding "
          "| mean Jaccard of its labels and embedding's | rows with the same |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- |")
    base = result["embedding"]["direct_rows_per_second"]
    for name in taggers:
        r = result[name]
        direct_rate, spark_rate = r["direct_rows_per_second"], r["spark_rows_per_second"]
        print(f"| {name} | {direct_rate:,.1f} | {spark_rate:,.1f} | {r['spark_of_direct']:.0%} "
              f"| {direct_rate / base:.2f} | {r['agreement']:.3f} | {r['same']:.1%} |")  # fmt: skip


if __name__ == "__main__":
    main()
