"""The few lines that a run ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mig_spark.curation.stages import flat_counts
from mig_spark.kernels.annotation.rank_correlation import FOLLOWS

#: Which stage makes a file, where it has not the stage's name.
_STAGE_OF = {"selection": "select", "exports": "export"}
_FOLLOWED = {"answer_characters": "answer length", "turns": "turns", "labels": "labels"}


def summarise(run: dict[str, Any], stages: Sequence[str]) -> str:
    """A run in words: the funnel, the objective, where the files are."""
    counts = flat_counts(run["counts"])
    certificate = run["certificate"] if "select" in stages else {}
    unchanged = run.get("skipped", {})
    lines = [f"run {run['run_id']}  ({sum(run['seconds'].get(s, 0) for s in stages):.0f} s)"]
    if unchanged:
        lines.append(f"  {'unchanged':<12} {', '.join(unchanged)}  (done before from the same inputs)")
    # the stage that writes the table `annotated` counts tokens
    counted = {k: v for k, v in run["counts"].get("vocabulary", {}).items() if k == "tokens"}
    lines += _funnel(counts, stages, {**run["counts"].get("annotate", {}), **counted})
    if "graph" in stages and (chosen := run["counts"].get("graph", {}).get("threshold_chosen")):
        lines.append(f"  {'threshold':<12} {chosen['threshold']:g}  (graph.threshold: auto, by {chosen['by']})")
    if "vocabulary" in stages and "vocabulary" in run.get("command", "").split():
        lines.append(_vocabulary(run["counts"]["vocabulary"]))
    if certificate:
        lines += _objective(certificate)
    if "export" in stages and "exports" in run.get("files", {}):
        lines += [_exported(kind, made) for kind, made in run["counts"].get("export", {}).items()]
    for name, path in run.get("files", {}).items():
        if name == "tables" or _STAGE_OF.get(name, name) in stages:
            lines.append(f"  {name:<12} {path}")
    return "\n".join(lines)


def _funnel(counts: dict[str, Any], stages: Sequence[str], annotation: dict[str, Any]) -> list[str]:
    shown = []
    if "ingest" in stages:
        shown.append(("rows in", f"{counts['read']:,}"))
        kinds = counts.get("kinds") or {}
        if len(kinds) > 1:
            shown.append(("  kinds", ", ".join(f"{n:,} {kind}" for kind, n in kinds.items())))
    if {"ingest", "screen", "annotate"} & set(stages):
        rejected = counts["rejected"]
        why = ", ".join(f"{n:,} {reason}" for reason, n in rejected.items())
        shown.append(("rejected", f"{sum(rejected.values()):,}" + (f"  ({why})" if why else "")))
    if "screen" in stages and counts["screened"] is not None:
        shown.append(("screened", _screened(counts)))
        found = {name: said["rows"] for name, said in counts["eval_sets"].items() if said["rows"]}
        if found:
            shown.append(("  in sets", ", ".join(f"{n:,} {name}" for name, n in found.items())))
        if near := counts["near_duplicates"]:
            shown.append(("  near", f"{near['rows']:,} rows in {near['groups']:,} groups of near duplicates"))
    if "annotate" in stages:
        shown.append(("annotated", f"{counts['annotated']:,}"))
        shown += _annotation(annotation)
    if "graph" in stages:
        together = counts.get("cooccurrence_edges")
        edges = f"{counts['edges']:,}" + (f" by similarity, {together:,} by co-occurrence" if together else "")
        shown += [("labels", f"{counts['labels']:,}"), ("edges", edges)]
    if "select" in stages:
        shown.append(("selected", f"{counts['selected']:,}"))
    return [f"  {name:<12} {value}" for name, value in shown]


def _exported(kind: str, made: dict[str, Any]) -> str:
    left_out = f", {made['left_out']:,} left out" if made["left_out"] else ""
    return f"  {'export':<12} {kind}: {_rows(made['written'])}{left_out}"


def _rows(n: int) -> str:
    return f"{n:,} row{'' if n == 1 else 's'}"


def _screened(counts: dict[str, Any]) -> str:
    share = counts["copies"] / counts["pool"] if counts["pool"] else 0.0
    copies = f"  ({counts['copies']:,} copies of others, {share:.1%} of the pool)" if counts["copies"] else ""
    return f"{counts['screened']:,}{copies}"


def _annotation(made: dict[str, Any]) -> list[tuple[str, str]]:
    """What was labelled and scored, how it looks, and what it has cost."""
    health = made["health"]
    score, flags = health["score"], [f"{n:,} {flag}" for flag, n in health["flags"].items() if n]
    labels = f"{health['labels_a_row']:.1f} a row, {_rows(health['without_labels'])} with none"
    if health["labels_outside"]:
        labels += f", {health['labels_outside']:,} outside the list"
    shown = [
        ("  labels", labels + (f"; rows {', '.join(flags)}" if flags else "")),
        ("  score", f"median {score['median']:.3g}, 98% from {score['p01']:.3g} to {score['p99']:.3g}"),
    ]
    for role, one in (made.get("students") or {}).items():
        shown.append(("  student", _student(role, one)))
    if (groups := made.get("groups")) and groups["levels"]:
        levels = " and ".join(f"{n:,}" for n in groups["levels"])
        shown.append(("  groups", f"{levels} of requests that are worded alike; {groups['share']:.0%} of "
                      f"{groups['sample']:,} rows are in one"))  # fmt: skip
    follows = {name: rho for name, rho in (health.get("follows") or {}).items() if rho is not None}
    if follows:
        words = ", ".join(f"{_FOLLOWED[name]} {rho:.2f}" for name, rho in follows.items())
        far = any(abs(rho) > FOLLOWS for rho in follows.values())
        shown.append(("  follows", f"rank correlation of the score with {words}{'  (above 0.6)' if far else ''}"))
    if made.get("requests") or made.get("reused"):
        used = f"{made['requests']:,} requests ({made['retries']:,} second tries)"
        tokens = f"{made['prompt_tokens']:,} tokens in, {made['completion_tokens']:,} out"
        reused = f"; {made['reused']:,} answers of a run that died" if made["reused"] else ""
        shown.append(("  endpoint", f"{used}, {tokens}{reused}"))
    if health.get("unanswered"):
        waiting, unread = made.get("waiting", 0), health["unparsable"]
        shown.append(("  unanswered", f"{health['unanswered']:,} ({unread:,} unparsable), {waiting:,} to ask again"))
    if counted := made.get("tokens"):
        refused = f", {_rows(counted['uncounted'])} refused by its chat template" if counted["uncounted"] else ""
        shown.append(("  tokens", f"{counted['tokens']:,} by {counted['tokenizer']}{refused}"))
    return shown


def _student(role: str, one: dict[str, Any]) -> str:
    found = "unknown" if one["agreement"] is None else f"{one['agreement']:.2f}"
    asked = f"{_rows(one['asked'])} asked in this run" if one["asked"] else f"fitted by run {one['fitted_by']}"
    if one["requests"]:
        asked += f", {one['requests']:,} requests"
    return (
        f"{role}, of {one['teacher']}: {one['measure']} {found} on {_rows(one['held_out'])} held out, fitted on "
        f"{one['fitted_on']:,} ({asked})"
    )


def _vocabulary(counts: dict[str, Any]) -> str:
    edited = f", {counts['edited']:,} edited by hand" if counts["edited"] else ""
    return (
        f"  {'vocabulary':<12} {counts['raw_tags']:,} raw tags to {counts['labels']:,} labels "
        f"({counts['merged']:,} merged, {counts['dropped']:,} dropped{edited}); "
        f"{counts['rows_without_labels']:,} rows without a label"
    )


def _objective(certificate: dict[str, Any]) -> list[str]:
    mine, random = certificate["objective"], certificate.get("random_objective")
    if mine is None:
        shown = f"{certificate['strategy']}, which has no objective and promises none: there is no certificate"
        return [f"  {'strategy':<12} {shown}", *(f"  note: {note}" for note in certificate.get("notes", ()))]
    text = f"{mine:,.1f}"
    if random:
        text += f"  (a random selection of the same size: {random:,.1f}, this is {mine / random:.2f} x)"
    lines = [f"  {'objective':<12} {text}"]
    engine = f"engine {certificate['engine']}, {certificate['rounds']} round{'s' if certificate['rounds'] != 1 else ''}"
    bound = certificate.get("upper_bound")
    if bound:
        engine += (
            f"; no selection of this size can exceed {bound:,.1f}, so this has at least {mine / bound:.0%} of the best"
        )
    lines.append(f"  {'certificate':<12} {engine}")
    lines += [f"  note: {note}" for note in certificate.get("notes", ())]
    return lines
