"""The rules of the scorer `heuristic` against evidence: what each follows, which defects it sees, what it selects.

    python benchmarks/heuristics.py [--data ../shared/data] [--most 1000] [--budget 2000] [--no-selections]

Four tables over a pool whose tasks are known (T0's tasks, mathematics, code, chat; each text once, at most `--most`
rows of a task):

* rule by rule, also those that were left out with version 3: rank correlation with the length of the answer and of the
  request, and the rows on which the rule bites;
* defects: every answer is damaged in each of seven ways; how often the damaged row scores lower than it did (a tie is
  half). `swapped`, the answer of another row, is there to show what rules of form cannot see;
* rules that were tried for what those above let through, an answer of one sentence that breaks off and a short answer
  that repeats the request: rows and tasks as they are on which one bites, beside the damaged rows that it sees;
* selections of `--budget` rows by labels of `distilled`, a tenth of the answers damaged: tasks that keep a row, beside
  ten random selections; the mean length of selected answers and requests over the pool's; the share of damaged rows,
  over the pool's. By the score of version 2, of today, and both with
  `annotate.score.control: length`.

All is drawn from fixed seeds; a second run prints the same. No Spark is started.
"""

from __future__ import annotations

import sys

# this folder has a `select.py`, which would hide the standard library's
sys.path.append(sys.path.pop(0))

import argparse
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import quality_pools

from mig_spark.kernels.annotation import heuristics
from mig_spark.kernels.annotation.heuristics import information

Floats = npt.NDArray[np.float64]
DEFECTS = ("empty", "refusal", "repeated", "echo", "garbled", "cut", "swapped")
DAMAGED = 0.1
CLASSES = 20
MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Row:
    task: str
    prompt: str
    answer: str
    defect: str = ""

    @property
    def messages(self) -> list[dict[str, str | None]]:
        return [{"role": "user", "content": self.prompt}, {"role": "assistant", "content": self.answer}]


def read_rows(folder: Path, most: int) -> list[Row]:
    """Each text once, at most `most` rows of a task, in the order of their hashes."""
    seen: dict[str, int] = {}
    kept = []
    for row in sorted(quality_pools.read_rows(folder), key=lambda row: row.key):
        seen[row.task] = seen.get(row.task, 0) + 1
        if seen[row.task] <= most:
            kept.append(Row(row.task, row.prompt, row.answer))
    return kept


# ---- rules


def scale(amount: float) -> float:
    """Of version 2: 0 for nothing, 1 from 1,024 bytes of information on, logarithmic in between."""
    return min(1.0, math.log2(1 + max(0.0, amount) / 16) / math.log2(65))


def structure(answer: str) -> float:
    """Of version 2: sentences, lines and marked lines."""
    sentences = len(heuristics._SENTENCE_END.findall(answer))
    lines = sum(1 for line in answer.split("\n") if line.strip())
    marked = len(heuristics._MARKED_LINE.findall(answer))
    return (min(1.0, sentences / 4) + min(1.0, (lines - 1) / 5) + min(1.0, marked / 3)) / 3


def three_sentences(asked: str) -> bool:
    """Of version 2, a kind of demand."""
    return len(heuristics._SENTENCE_END.findall(asked)) >= 3


def rules(row: Row) -> dict[str, float]:
    """What each rule says of a row that has an answer; those of version 2 are marked with an asterisk."""
    told, wanted, flags = information(row.answer), information(row.prompt), set[str]()
    demands = sum(1 for demand in heuristics._DEMANDS if demand.search(row.prompt))
    return {
        "completeness": heuristics._completeness(row.answer, told, flags),
        "variety": heuristics._variety(row.answer, told, flags),
        "novelty": heuristics._novelty(row.prompt, row.answer, told, wanted, flags),
        "clean": heuristics._clean(row.answer, flags),
        "refusal": 0.0 if heuristics._REFUSAL.search(row.answer[:300].lower()) else 1.0,
        "demands": 1 - demands / 5,
        "substance *": scale(told),
        "structure *": structure(row.answer),
        "balance *": told / (told + wanted / 4),
        "answered *": scale(told),
        "asked *": scale(wanted),
        "three sentences *": 0.0 if three_sentences(row.prompt) else 1.0,
    }


def before(row: Row) -> float:
    """The score of version 2, of one turn."""
    if not row.answer:
        quality = 1.0
    else:
        r = rules(row)
        complete = 1.0 if r["completeness"] == 1 else 0.3
        merits = 0.5 * r["substance *"] + min(1.0, 4 * r["substance *"]) * (
            0.15 * r["structure *"] + 0.15 * complete + 0.2 * r["balance *"]
        )
        refused = 1.0 if r["refusal"] else (0.35 if information(row.answer) < 256 else 0.6)
        quality = 1 + 5 * merits * r["variety"] * r["novelty"] * r["clean"] * refused
    demands = sum(1 for d in heuristics._DEMANDS if d.search(row.prompt)) + three_sentences(row.prompt)
    return quality * (
        1
        + 5
        * (0.35 * scale(information(row.prompt)) + 0.25 * scale(information(row.answer)) + 0.25 * min(1, demands / 4))
    )


def now(row: Row) -> float:
    """The score of today."""
    return heuristics.score_messages(row.messages)[0]


# ---- defects


def damaged(row: Row, defect: str, other: Row) -> Row | None:
    """The row with its answer spoilt; None where it cannot be in this way."""
    answer = row.answer
    if not answer:
        return None
    if defect == "cut":
        if len(answer) < 120 or " " not in answer[60:]:
            return None
        answer = answer[: int(len(answer) * 0.6)].rsplit(" ", 1)[0].rstrip(".!?… \n")
    made = {
        "empty": "",
        "refusal": "I'm sorry, but as an AI language model I cannot help with that.",
        "repeated": " ".join([answer[-80:]] * 25),
        "echo": row.prompt,
        "garbled": "".join("&nbsp;<br>" if c == " " and k % 3 == 0 else c for k, c in enumerate(f"{answer} ")).replace(
            "e", "Ã©"
        ),
        "cut": answer,
        "swapped": other.answer,
    }
    return None if made[defect] == row.answer else replace(row, answer=made[defect], defect=defect)


def with_damage(rows: list[Row]) -> list[Row]:
    """A tenth of the answers are damaged, each in one way that can be seen from the text."""
    draw = random.Random(3)
    return [
        (draw.random() < DAMAGED and damaged(row, draw.choice(DEFECTS[:-1]), row)) or row for row in rows
    ]  # fmt: skip


# ---- tables


def ranks(values: Floats) -> Floats:
    from scipy.stats import rankdata

    return np.asarray(rankdata(values), dtype=np.float64)


def correlation(a: Floats, b: Floats) -> float:
    """Spearman's; nan for a constant."""
    a, b = ranks(a), ranks(b)
    spread = a.std() * b.std()
    return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread else math.nan


def show_rules(rows: list[Row]) -> None:
    found = [rules(row) for row in rows if row.answer]
    answers = np.array([len(row.answer) for row in rows if row.answer], dtype=np.float64)
    requests = np.array([len(row.prompt) for row in rows if row.answer], dtype=np.float64)
    print(f"\n| rule | rows where it bites | with the answer's length | with the request's |\n{'| --- ' * 4}|")
    for name in found[0]:
        values = np.array([r[name] for r in found])
        print(
            f"| {name} | {(values < 1).mean():.1%} | {correlation(values, answers):.2f} "
            f"| {correlation(values, requests):.2f} |"
        )


def show_defects(rows: list[Row]) -> None:
    others = rows[1:] + rows[:1]
    print(f"\n| defect | rows | version 2 | version {heuristics.VERSION} |\n{'| --- ' * 4}|")
    for defect in DEFECTS:
        pairs = [(row, bad) for row, o in zip(rows, others, strict=True) if (bad := damaged(row, defect, o))][:2000]
        seen = [
            np.mean([(score(bad) < score(row)) + 0.5 * (score(bad) == score(row)) for row, bad in pairs])
            for score in (before, now)
        ]
        print(f"| {defect} | {len(pairs)} | {seen[0]:.0%} | {seen[1]:.0%} |")


def broken_off(answer: str) -> str | None:
    """The first three fifths of the words of an answer of one sentence; None where it is none, or has too few."""
    words = answer.split(" ")
    if len(words) < 5 or len(heuristics._SENTENCE_END.findall(answer)) > 1:
        return None
    cut = " ".join(words[: max(3, len(words) * 3 // 5)]).rstrip(".!?… \n")
    return cut if cut and not heuristics._SENTENCE_END.search(cut) else None


def open_end(least: int) -> Callable[[str, str], bool]:
    """No end mark at all, and the last character would break off prose of several sentences."""

    def bites(_asked: str, answer: str) -> bool:
        last = answer.rsplit("\n", 1)[-1]
        open_ = (answer[-1].isalpha() or answer[-1] in ",،，、;；-–—") and not heuristics._MARKED_LINE.match(last)
        return open_ and not heuristics._SENTENCE_END.search(answer) and information(answer) > least

    return bites


def last_word(words: str) -> Callable[[str, str], bool]:
    """No end mark, three words and more, and the last is one of these."""
    known = frozenset(words.split())

    def bites(_asked: str, answer: str) -> bool:
        said = answer.split()
        return len(said) > 2 and said[-1].lower() in known and not heuristics._SENTENCE_END.search(answer)

    return bites


def is_request(asked: str, answer: str) -> bool:
    """The answer is the request, but for case and marks around it."""
    return bool(asked) and heuristics._bare(asked) == heuristics._bare(answer)


def is_piece(asked: str, answer: str) -> bool:
    """The answer is a piece of the request."""
    return heuristics._bare(answer) in heuristics._bare(asked)


#: Beside a bare list: English words after which a sentence goes on; those of the first line always, of the second most
#: often.
ALWAYS = "a an the and or nor than because their our your my"
MOSTLY = (
    f"{ALWAYS} of to in on at by for from with into if as is are was were be been has have had not both its his her"
)


def show_tried(rows: list[Row]) -> None:
    whole = [row for row in rows if row.answer]
    short = [row for row in whole if information(row.answer) < heuristics.SHORT]
    cut = [replace(row, answer=answer) for row in whole if (answer := broken_off(row.answer))]
    echoes = [replace(row, answer=row.prompt) for row in rows if 0 < information(row.prompt) < heuristics.SHORT]
    print(f"\n{len(whole)} answers, {len(short)} short; {len(cut)} of one sentence cut, {len(echoes)} short echoes\n")
    print(f"| rule | rows where it bites | tasks with more than 10% | damaged rows seen |\n{'| --- ' * 4}|")
    for name, bites, there, bad in (
        *((f"no end mark, above {k} bytes", open_end(k), whole, cut) for k in (24, 64, 128)),
        ("ends in a word of the long list", last_word(MOSTLY), whole, cut),
        ("ends in a word of the short list", last_word(ALWAYS), whole, cut),
        ("short, and a piece of the request", is_piece, short, echoes),
        ("short, and the request itself", is_request, short, echoes),
    ):
        hit = [row for row in there if bites(row.prompt, row.answer)]
        of_task, by_task = (Counter(row.task for row in some) for some in (whole, hit))
        many = sum(n > 0.1 * of_task[task] for task, n in by_task.items())
        seen = np.mean([bites(row.prompt, row.answer) for row in bad]) if bad else math.nan
        print(f"| {name} | {len(hit)} ({len(hit) / len(there):.2%}) | {many} | {seen:.0%} |")


def within_classes(scores: Floats, lengths: Floats, spread: float) -> Floats:
    """`annotate.score.control: length`, by its definition in docs/annotation.md."""
    place = np.searchsorted(np.sort(lengths), lengths) * CLASSES // len(lengths)
    out = np.empty(len(scores))
    for k in np.unique(place):
        rank = (ranks(scores[place == k]) - 0.5) / (place == k).sum()
        out[place == k] = 1 / spread + (1 - 1 / spread) * rank
    return out


def show_selections(rows: list[Row], budget: int) -> None:
    import pandas as pd
    from quality import tagged

    import mig_spark

    labels = tagged("distilled", rows)
    rows = with_damage(rows)
    tasks, lengths = np.array([row.task for row in rows]), np.array([len(row.answer) for row in rows], np.float64)
    requests, bad = np.array([len(row.prompt) for row in rows]), np.array([row.defect != "" for row in rows])
    old, new = (np.array([score(row) for row in rows]) for score in (before, now))
    quality, complexity, _ = heuristics.score_rows([row.messages for row in rows])
    product = quality * complexity
    draws = [np.random.default_rng(k).choice(len(rows), budget, replace=False) for k in range(10)]
    kept = float(np.mean([len(set(tasks[d])) for d in draws]))
    print(f"\n{budget} of {len(rows)} rows, {len(set(tasks))} tasks, of which random selections keep {kept:.1f}")
    print("\n| score | with the answer's length | tasks kept, of random | answers | requests | damaged rows |")
    print("| --- " * 6 + "|")
    for name, score in (
        ("version 2", old),
        ("version 2, control: length, spread: null", within_classes(old, lengths, math.inf)),
        ("version 2, control: length, spread: 2", within_classes(old, lengths, 2.0)),
        ("version 2, control: length", within_classes(old, lengths, 1.5)),
        (f"version {heuristics.VERSION}", new),
        (f"version {heuristics.VERSION}, control: length", within_classes(new, lengths, 1.5)),
        (f"version {heuristics.VERSION}, quality x complexity", product),
        ("all equal", np.ones(len(rows))),
    ):
        pool = pd.DataFrame({"id": [f"{k:06d}" for k in range(len(rows))], "labels": labels, "score": score})
        picked = np.array([int(i) for i in mig_spark.select(pool, budget, model=MODEL, upper_bound=False).ids])
        print(
            f"| {name} | {correlation(score, lengths):.2f} | {len(set(tasks[picked])) / kept:.2f} "
            f"| {lengths[picked].mean() / lengths.mean():.2f} x | {requests[picked].mean() / requests.mean():.2f} x "
            f"| {bad[picked].mean() / bad.mean():.2f} x |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--most", type=int, default=1000)
    parser.add_argument("--budget", type=int, default=2000)
    parser.add_argument("--no-selections", action="store_true")
    args = parser.parse_args()
    if absent := quality_pools.missing(args.data):
        print(f"nothing measured: {', '.join(absent)} not in {args.data}; --data names the folder", file=sys.stderr)
        return
    rows = read_rows(args.data, args.most)
    print(f"{len(rows)} rows of {len({row.task for row in rows})} tasks")
    shown: list[Callable[[], None]] = [lambda: show_rules(rows), lambda: show_defects(rows), lambda: show_tried(rows)]
    if not args.no_selections:
        shown.append(lambda: show_selections(rows, args.budget))
    for show in shown:
        show()


if __name__ == "__main__":
    main()
