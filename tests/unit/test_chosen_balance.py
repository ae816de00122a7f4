"""`select.phi.b: auto`: the frontier against plain selections, the rule, and what the choice depends on."""

from __future__ import annotations

import logging
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mig_spark import select
from mig_spark.config import SelectConfig, build_config, build_part
from mig_spark.errors import ConfigError, InputError
from mig_spark.kernels.selection import trials
from mig_spark.kernels.selection.frontier import (
    FLAT,
    GRID,
    ChosenBalance,
    FrontierPoint,
    choose_balance,
    choose_on,
    effective_labels,
)
from mig_spark.kernels.selection.memory import MemoryBlocks
from mig_spark.kernels.selection.objective import Phi, PropagationMatrix
from mig_spark.kernels.selection.trials import LEAST_COVER
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.select_rows import select_rows
from mig_spark.selection.settings import settled

LABELS = [f"l{k}" for k in range(12)]


def pool(n: int = 600, seed: int = 0) -> pa.Table:
    """Labels with a generous scorer each: what b decides about."""
    rng = random.Random(seed)
    rows = []
    for k in range(n):
        mine = rng.sample(range(12), rng.randint(1, 2))
        rows.append((f"r{k:05d}", [LABELS[j] for j in mine], round(float(rng.uniform(1, 2) * (1 + np.mean(mine))), 4)))
    ids, labels, scores = zip(*rows, strict=True)
    return pa.table({"id": ids, "labels": list(labels), "score": scores})


def packed(table: pa.Table, block_rows: int = 100_000) -> MemoryBlocks:
    rows = ArrowRows.of(table, SelectConfig())
    return rows.pack(sorted(LABELS), SelectConfig(block_rows=block_rows))


def chosen_of(table: pa.Table, *, budget: int = 60, block_rows: int = 100_000, **more) -> ChosenBalance:
    options = {"score_share": 0.95, "seed": 0, "default": 0.8, **more}
    return choose_balance(
        packed(table, block_rows), PropagationMatrix.identity(12), lambda b: Phi.power(12, b=b), budget=budget,
        **options,
    )  # fmt: skip


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60))
def test_effective_labels_are_the_hill_number_of_order_1(ids: list[int]) -> None:
    counts = np.bincount(ids)
    assert effective_labels(np.array(ids)) == pytest.approx(np.exp(stats.entropy(counts[counts > 0])))
    assert 1.0 - 1e-12 <= effective_labels(np.array(ids)) <= len(set(ids)) + 1e-9


def test_no_label_is_no_effective_label() -> None:
    assert effective_labels(np.array([], np.int32)) == 0.0


@pytest.mark.parametrize("exact", [False, True])
def test_the_frontier_is_that_of_plain_selections(exact: bool) -> None:
    table = pool()
    found = chosen_of(table, exact=exact)
    assert (found.by, found.rows, found.picks, found.pool_rows) == ("frontier", 600, 60, 600)
    scores = dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    for point in found.frontier:
        taken = select(table, 60, phi={"b": point.b}, gain="exact" if exact else "gradient")
        labels = [LABELS.index(name) for row in taken.to_arrow()["labels"].to_pylist() for name in row]
        assert point.mean_score == pytest.approx(np.mean([scores[i] for i in taken.ids]))
        assert point.effective_labels == pytest.approx(np.exp(stats.entropy(np.bincount(labels))))
    assert [point.b for point in found.frontier] == list(GRID)
    assert found.b == choose_on(found.frontier, 0.95)
    # what the pool was made for: the lower b, the more labels and the less score
    assert found.frontier[0].mean_score < 0.99 * found.frontier[-1].mean_score
    assert found.frontier[0].effective_labels > found.frontier[-1].effective_labels


points = st.lists(
    st.tuples(st.floats(0, 100), st.floats(1, 1000)), min_size=len(GRID), max_size=len(GRID)
)  # fmt: skip


@given(points, st.floats(0.01, 1))
def test_what_is_chosen_keeps_the_share_and_gives_up_no_score_for_nothing(found, share: float) -> None:
    curve = [FrontierPoint(b, *numbers) for b, numbers in zip(GRID, found, strict=True)]
    here = next(p for p in curve if p.b == choose_on(curve, share))
    keeping = [p for p in curve if p.mean_score >= share * curve[-1].mean_score * (1 - 1e-9)]
    most = max(p.effective_labels for p in keeping)
    assert here in keeping
    assert here.effective_labels >= (1 - FLAT) * most
    assert all(p.b <= here.b for p in keeping if p.effective_labels >= (1 - FLAT) * most)


@given(points, st.floats(0.01, 1), st.floats(0.01, 1))
def test_to_keep_more_score_never_lowers_b_on_a_frontier_that_rises(found, one: float, other: float) -> None:
    scores = sorted(score for score, _ in found)
    curve = [FrontierPoint(b, s, labels) for b, s, (_, labels) in zip(GRID, scores, found, strict=True)]
    low, high = sorted((one, other))
    assert choose_on(curve, low) <= choose_on(curve, high)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([7, 50, 10_000]))
def test_neither_order_nor_blocks_matter(seed: int, block_rows: int) -> None:
    table = pool(400, seed=seed % 3)
    shuffled = table.take(np.random.default_rng(seed).permutation(400))
    assert chosen_of(shuffled, block_rows=block_rows) == chosen_of(table)


def test_a_large_pool_is_tried_on_a_sample_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SAMPLED_ROWS", 400)
    table = pool(4000)
    found = chosen_of(table, budget=800)
    assert found.by == "frontier"
    assert 300 < found.rows < 500
    assert found.picks == round(800 * found.rows / 4000)
    assert found == chosen_of(table, budget=800, block_rows=90)
    assert found.frontier != chosen_of(table, budget=800, seed=1).frontier
    whole = next(p for p in found.frontier if p.b == 0.8)
    monkeypatch.undo()
    every = next(p for p in chosen_of(table, budget=800).frontier if p.b == 0.8)
    # the sample tells of the pool: 80 picks for 12 labels
    assert whole.mean_score == pytest.approx(every.mean_score, rel=0.06)
    assert whole.effective_labels == pytest.approx(every.effective_labels, rel=0.06)


def test_a_sample_that_is_too_small_grows_as_far_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SAMPLED_ROWS", 100)
    table = pool(4000)
    found = chosen_of(table, budget=400)
    assert found.by == "frontier"
    assert found.picks * found.labels_a_row >= LEAST_COVER * 12
    assert 400 < found.rows < 700
    monkeypatch.setattr(trials, "MOST_ROWS", 200)
    assert (chosen_of(table, budget=400).by, chosen_of(table, budget=400).b) == ("default", 0.8)


def test_too_few_picks_stay_at_the_published_value_and_say_so() -> None:
    found = chosen_of(pool(), budget=20)
    assert (found.b, found.by, found.frontier) == (0.8, "default", [])
    assert "auto stays at 0.8, the published value: 20 picks of 600 rows" in found.describe()
    assert "12 labels" in found.describe()
    assert chosen_of(pool(), budget=0).by == "default"
    assert chosen_of(pool().slice(0, 0), budget=5).by == "default"


def test_select_by_auto_is_select_by_the_number_that_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    table = pool()
    with caplog.at_level(logging.INFO, logger="mig_spark"):
        found = select(table, 60, phi={"b": "auto", "score_share": 0.9}, upper_bound=False)
    assert found.certificate is not None
    told = found.certificate.balance
    assert told is not None
    assert told["by"] == "frontier"
    assert told["b"] < 0.95
    assert found == select(table, 60, phi={"b": told["b"]}, upper_bound=False)
    line = f"select.phi.b: auto takes {told['b']:g}: it keeps"
    assert line in caplog.text
    assert found.notes[0].startswith(line)
    assert found.certificate.to_dict()["balance"] == told
    assert select(table, 60).certificate.balance is None


def test_a_selection_that_is_resumed_goes_on_with_the_number_it_began_with() -> None:
    table, graph = pool(), LabelGraph.without_edges(LABELS)
    config = SelectConfig(budget=60, phi={"b": "auto", "score_share": 0.9}, upper_bound=False)
    rows = ArrowRows.of(table, config)
    whole = select_rows(rows, graph, config)
    for upto in (1, 30, 59):
        again = select_rows(rows, graph, config, resume=whole.ids[:upto])
        assert again.ids == whole.ids
        assert again.certificate.balance == whole.certificate.balance


def test_own_parameters_and_quotas_and_costs_do_not_stand_in_the_way(tmp_path) -> None:
    own = tmp_path / "own.json"
    own.write_text('{"l3": {"b": 0.2, "weight": 2}}')
    table = pool().append_column("kind", pa.array(["xy"[k % 2] for k in range(600)]))
    table = table.append_column("price", pa.array([1.0 + k % 3 for k in range(600)]))
    quotas = {"column": "kind", "limits": {"x": {"max": 20}}}
    auto = {"b": "auto", "score_share": 0.9}
    found = select(table, 60, phi=auto, label_parameters=str(own), quotas=quotas)
    assert found.certificate.balance["by"] == "frontier"
    assert len(found) == 60
    cost = select(table, 60, phi=auto, cost={"column": "price", "budget": 100})
    plain = select(table, 60, phi=auto)
    assert cost.certificate.balance == plain.certificate.balance != found.certificate.balance


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"phi": {"b": "atuo"}}, r"select.phi.b = 'atuo': .*or the word auto"),
        ({"phi": {"b": 1.0}}, r"select.phi.b = 1.0: give less than 1"),
        ({"phi": {"b": "auto", "kind": "exp"}}, "kind: exp has none"),
        ({"phi": {"b": "auto", "score_share": 1.2}}, "select.phi.score_share = 1.2"),
        ({"phi": {"b": "auto", "score_share": 0}}, "select.phi.score_share = 0"),
        ({"phi": {"score_share": 0.9}}, "score_share is what b: auto goes by"),
        ({"phi": {"b": "auto"}, "budget": None, "cost": {"budget": 9}}, "give a number of rows"),
        ({"seed": 3}, "mig does not go by seed"),
        ({"phi": {"b": "auto"}, "strategy": "random"}, "does not go by phi"),
    ],
)
def test_what_auto_cannot_be_is_told(section, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config({"pool": {"path": "x"}, "output": {"path": "y"}, "select": section})


def test_whatever_looks_at_a_selection_goes_by_its_number() -> None:
    auto = build_part(SelectConfig, {"phi": {"b": "auto", "score_share": 0.9, "a": 0.1}, "seed": 4}, where="here")
    number = settled(auto, {"balance": {"b": 0.6}})
    assert number == SelectConfig(phi={"b": 0.6, "a": 0.1})
    assert settled(number, None) is number
    for certificate in (None, {}, {"balance": None}):
        with pytest.raises(InputError, match="no selection on record says which number"):
            settled(auto, certificate)
