"""What a comparison of strategies found: each measure of each strategy at each budget, and how far it is from random
selections and from the strategy of the config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mig_spark.kernels.evaluation.measures import Difference, Floats, Ints, Measured, by_group, difference

#: By name: what is measured, and whether more of it is better (1), less (-1), or neither (0).
MEASURES: dict[str, tuple[str, Literal[-1, 0, 1]]] = {
    "strata": ("strata with a row", 1),
    "own": ("nearest is of the own stratum", 1),
    "distance": ("distance to the nearest", -1),
    "novelty": ("novelty", 1),
    "loss": ("loss on answers kept back", -1),
    "length": ("answers' length", 0),
}


@dataclass(frozen=True)
class Line:
    """One measure of one strategy at one budget.

    Attributes:
        share, rows: the budget, as a share of the sample and in rows.
        strategy: its name.
        measure: a key of `MEASURES`.
        value: the mean over runs.
        runs: how many.
        beside_random: less random's value; None for random itself.
        own_beside: the value of the strategy of `select` less this one; None for that strategy itself.
    """

    share: float
    rows: int
    strategy: str
    measure: str
    value: float
    runs: int
    beside_random: Difference | None
    own_beside: Difference | None


@dataclass(frozen=True)
class Evidence:
    """What `mig-spark evaluate` found.

    Attributes:
        own: the strategy of `select`.
        rows, prompts, rows_in_all: of the sample, kept back, and in the annotated pool.
        stratum, strata: what says which rows belong together, and how many values it has in the sample.
        compared_by: what the prompts were compared by.
        score_follows: Spearman's correlation of score and answer length in the sample; None where one is constant.
        lines: of all budgets, strategies and measures.
        seconds: by strategy, of one selection at the largest budget.
        training: how a model was trained, and its loss before; empty where none was.
        notes: what was left out, and why.
        settings: the section `select` of the config, as plain values; None in tables of older versions.
    """

    own: str
    rows: int
    prompts: int
    rows_in_all: int
    stratum: str
    strata: int
    compared_by: str
    score_follows: float | None
    lines: list[Line]
    seconds: dict[str, float]
    training: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    settings: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def lines_of(
    share: float, rows: int, measured: Mapping[str, Sequence[Measured]], *, random: str, own: str, asked_strata: Ints,
    one_stratum: bool,
) -> Iterator[Line]:  # fmt: skip
    """The lines of one budget.

    Args:
        measured: by strategy, a selection each run; random and own among them.
        asked_strata: int (q,), of the prompts kept back.
        one_stratum: whether strata say nothing, for there is one.
    """
    for measure in MEASURES:
        of_strata = one_stratum and measure in ("strata", "own")
        of_prompts = not len(asked_strata) and measure in ("own", "distance")
        if measure == "loss" or of_strata or of_prompts:
            continue
        groups = asked_strata if measure == "distance" else None
        runs = {name: [_values(measure, one) for one in several] for name, several in measured.items()}
        yield from _of_measure(share, rows, measure, runs, groups, random=random, own=own)


def loss_lines(
    share: float, rows: int, losses: Mapping[str, Sequence[Floats]], *, random: str, own: str, strata: Ints
) -> Iterator[Line]:
    """The lines of what a model learned: the mean over strata of the loss on answers kept back.

    Args:
        losses: by strategy, float (p,) each run, in nats a token.
        strata: int (p,).
    """
    yield from _of_measure(share, rows, "loss", losses, strata, random=random, own=own)


def _values(measure: str, one: Measured) -> Floats:
    value: Any = getattr(one, measure)
    return np.atleast_1d(np.asarray(value, np.float64))


def _of_measure(
    share: float, rows: int, measure: str, runs: Mapping[str, Sequence[Floats]], groups: Ints | None, *, random: str,
    own: str,
) -> Iterator[Line]:  # fmt: skip
    for name, several in runs.items():
        mean = np.mean(several, axis=0)
        value = float(mean.mean() if groups is None else by_group(mean, groups).mean())
        yield Line(
            share, rows, name, measure, value, len(several),
            None if name == random else difference(several, runs[random], groups),
            None if name == own else difference(runs[own], several, groups),
        )  # fmt: skip


def in_order(lines: Iterable[Line], strategies: Sequence[str]) -> list[Line]:
    """Lines by budget, measure and strategy, in the orders of `MEASURES` and of `strategies`."""
    measure = {name: k for k, name in enumerate(MEASURES)}
    strategy = {name: k for k, name in enumerate(strategies)}
    return sorted(lines, key=lambda line: (line.share, measure[line.measure], strategy[line.strategy]))


def verdicts(evidence: Evidence) -> Iterator[str]:
    """By measure, which strategies the strategy of `select` is ahead of, behind, and not to be told from, at how many
    of the budgets; and beside which no verdict can be given, for no run of either differs from another."""
    for measure, (what, better) in MEASURES.items():
        of_measure = [line for line in evidence.lines if line.measure == measure and line.own_beside is not None]
        if not better or not of_measure:
            continue
        budgets = len({line.share for line in of_measure})
        ahead, behind = dict[str, int](), dict[str, int]()
        for line in of_measure:
            assert line.own_beside is not None
            ahead.setdefault(line.strategy, 0)
            behind.setdefault(line.strategy, 0)
            if line.own_beside.told_apart:
                side = ahead if line.own_beside.value * better > 0 else behind
                side[line.strategy] += 1
        even = [name for name in ahead if not ahead[name] and not behind[name]]
        unknown = [name for name in even if all(
            not line.own_beside.decided for line in of_measure if line.strategy == name and line.own_beside is not None
        )]  # fmt: skip
        tied = [name for name in even if name not in unknown]
        parts = [
            f"{word} {', '.join(_at(name, n, budgets) for name, n in side.items() if n)}"
            for word, side in (("ahead of", ahead), ("behind", behind)) if any(side.values())
        ]  # fmt: skip
        parts += [f"not to be told from {', '.join(tied)}"] if tied else []
        parts += [f"without a verdict beside {', '.join(unknown)} (no run differs from another)"] if unknown else []
        yield f"{what[0].upper()}{what[1:]}: {evidence.own} is {'; '.join(parts)}"


def behind_random(evidence: Evidence) -> list[str]:
    """The measures by which the strategy of `select` is behind random selections at every budget, in words."""
    found = []
    for measure, (what, better) in MEASURES.items():
        sides = [
            line.beside_random for line in evidence.lines if (line.strategy, line.measure) == (evidence.own, measure)
        ]  # fmt: skip
        if better and sides and all(s is not None and s.told_apart and s.value * better < 0 for s in sides):
            found.append(what)
    return found


def _at(name: str, found: int, budgets: int) -> str:
    return name if found == budgets else f"{name} (at {found} of {budgets} budgets)"
