"""A comparison in words, for a terminal."""

from __future__ import annotations

import json

from mig_spark.compare.data import PUBLISHED, Comparison, Measured, Side

#: Sources that are told apart, those that differ most; ids that are named for each reason.
_SOURCES, _NAMED = 8, 3
#: The measures of a side: what they are called, and how they are written.
MEASURES = {
    "labels": ("different labels", ",.0f"),
    "objective": ("objective", ",.4f"),
    "mean_score": ("mean score", ",.3f"),
    "mean_labels": ("labels a row", ",.2f"),
    "mean_turns": ("turns a row", ",.2f"),
    "median_answer_characters": ("answer, median characters", ",.0f"),
    "tokens": ("tokens", ",.0f"),
}


def describe_comparison(found: Comparison) -> str:
    """A comparison in words."""
    a, b = found.a, found.b
    lines = [f"A  {_whose(a)}", f"B  {_whose(b)}"]
    lines.append(
        f"in both: {found.common:,} rows ({found.jaccard:.0%} of all that either has; two drawn by chance would have "
        f"{found.by_chance():,.1f})"
    )
    if found.prefixes:
        told = ", ".join(f"{common:,} of {k:,}" for k, common in found.prefixes)
        lines.append(f"among the first of both: {told}")
    if found.config is not None:
        lines += [f"config {key}: {json.dumps(x)} in A, {json.dumps(y)} in B" for key, (x, y) in found.config.items()]
        if not found.config:
            lines.append("config: the same")
    if found.pool is not None:
        lines.append(f"annotated pool of B against that of A: {pool_in_words(found.pool)}")
    for name, missing in (("A", found.only_a), ("B", found.only_b)):
        total = sum(one.rows for one in missing)
        lines.append(f"only in {name}: {total:,} rows")
        for one in missing:
            named = ", ".join(row.id for row in one.examples[:_NAMED])
            lines.append(f"  {one.rows:,}: {one.reason} (such as {named})")
    width = max(len(words) for words, _ in MEASURES.values())
    lines.append(f"{'':<{width}}  {'A':>14}  {'B':>14}")
    for name, (words, form) in MEASURES.items():
        values = [side.measures[name] for side in (a, b)]
        if any(value is not None for value in values):
            cells = "  ".join(f"{'-' if v is None else format(v, form):>14}" for v in values)
            lines.append(f"{words:<{width}}  {cells}")
    lines += _source_lines(a, b, width)
    if found.evidence is not None:
        lines.append(f"{measured_in_words(found.evidence)}:")
        lines += [f"{words:<{width}}  {x:>14,.4g}  {y:>14,.4g}" for words, x, y in found.evidence.lines]
    return "\n".join(lines)


def measured_in_words(found: Measured) -> str:
    """What the evidence is of."""
    return (
        f"mig-spark evaluate measured of {found.a} (A) and {found.b} (B), at {found.share:.0%} of a sample "
        f"({found.rows:,} rows), with their options there"
    )


def pool_in_words(pool: dict[str, int]) -> str:
    """How one annotated pool differs from another, see `Comparison.pool`."""
    named = {"new": "new", "gone": "gone", "other_labels": "with other labels", "other_score": "with another score"}
    return ", ".join(f"{n:,} {named[name]}" for name, n in pool.items() if n) or "the same rows"


def _whose(side: Side) -> str:
    if side.strategy is not None:
        what = f"{side.name}, chosen for this comparison"
    elif side.run_id is None:
        what = f"list {side.name}"
    else:
        named = side.name if side.name == PUBLISHED else f"run {side.name}"
        what = named if side.run_id == side.name else f"{named}, selected by run {side.run_id}"
    found = side.measures["found"]
    gone = "" if found == side.rows else f", {side.rows - int(found or 0):,} of them not in the annotated pool"
    return f"{what}: {side.rows:,} rows{gone}"


def source_shares(a: Side, b: Side) -> list[tuple[str, float, float]]:
    """Each source with its share of the rows of A and of B, those first that differ most."""

    def share(side: Side, name: str) -> float:
        return side.sources.get(name, 0) / max(1, sum(side.sources.values()))

    shares = [(name, share(a, name), share(b, name)) for name in {*a.sources, *b.sources}]
    return sorted(shares, key=lambda one: (-abs(one[1] - one[2]), one[0]))


def _source_lines(a: Side, b: Side, width: int) -> list[str]:
    shares = source_shares(a, b)
    if len(shares) < 2:
        return []
    lines = [f"{f'source {name}'[:width]:<{width}}  {x:>14.1%}  {y:>14.1%}" for name, x, y in shares[:_SOURCES]]
    return [*lines, f"({len(shares) - _SOURCES:,} more sources)"] if len(shares) > _SOURCES else lines
