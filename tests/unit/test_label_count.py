"""`select.norm` as a power of the number of labels, and `auto`: against plain selections and the dense greedy."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark import build_config, select
from mig_spark.config import SelectConfig, build_part
from mig_spark.errors import ConfigError, InputError
from mig_spark.kernels.selection import trials
from mig_spark.kernels.selection.blocks import pack_batches
from mig_spark.kernels.selection.label_count import GRID, MOST, ChosenNorm
from mig_spark.kernels.selection.label_powers import label_powers
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.select_rows import select_rows
from mig_spark.selection.settings import settled

from oracles.dense import dense_greedy, dense_propagation
from oracles.pools import pools

LABELS = [f"l{k:02d}" for k in range(12)]


def pool(n: int = 600, seed: int = 0) -> pa.Table:
    """One to six labels a row."""
    rng = np.random.default_rng(seed)
    mine = [[LABELS[k] for k in rng.choice(12, rng.integers(1, 7), replace=False)] for _ in range(n)]
    score = [round(float(rng.gamma(1.0, 2.0)) + 0.1, 4) for _ in mine]
    return pa.table({"id": [f"r{k:05d}" for k in range(n)], "labels": mine, "score": score})


def labels_a_row(table: pa.Table) -> float:
    return float(np.mean([len(row) for row in table["labels"].to_pylist()]))


def told(found: Any) -> dict[str, Any]:
    assert found.certificate is not None
    assert found.certificate.norm is not None
    return found.certificate.norm


@given(st.lists(st.integers(0, 5000), max_size=30), st.floats(0, 1))
def test_powers_are_powers_and_never_fall(counts: list[int], gamma: float) -> None:
    found = label_powers(np.array(counts, np.int64), gamma)
    for n, power in zip(counts, found.tolist(), strict=True):
        assert power == pytest.approx(max(n, 1) ** gamma, rel=1e-15)
    assert sorted(found.tolist()) == label_powers(np.array(sorted(counts), np.int64), gamma).tolist()


def test_powers_that_are_exact_are_exact() -> None:
    n = np.arange(1, 10_001)
    assert label_powers(n, 1.0).tolist() == n.tolist()
    assert label_powers(n, 0.0).tolist() == [1.0] * len(n)
    # IEEE 754 asks for the nearest float of a square root, on every machine
    assert label_powers(n, 0.5).tolist() == np.sqrt(n).tolist()
    assert label_powers(np.array([0]), 0.3).tolist() == [1.0]


@given(pools(), st.floats(0, 1), st.sampled_from(["gradient", "exact"]), st.integers(1, 20))
@settings(deadline=None)
def test_it_is_the_greedy_of_scores_that_are_divided(found, gamma: float, gain: Any, budget: int) -> None:
    n, rows, edges = found
    names = [f"l{k}" for k in range(n)]
    divided = [replace(r, score=r.score / float(label_powers(np.array([len(set(r.labels))]), gamma)[0])) for r in rows]
    keys, gains = dense_greedy(divided, dense_propagation(n, edges), budget, gain=gain)
    table = pa.table({
        "id": [r.key for r in rows], "labels": pa.array([[names[k] for k in r.labels] for r in rows],
                                                        pa.list_(pa.string())), "score": [r.score for r in rows],
    })  # fmt: skip
    config = SelectConfig(budget=budget, norm=gamma, gain=gain, upper_bound=False)
    graph = LabelGraph(names, _propagation(n, edges))
    taken = select_rows(ArrowRows.of(table, config), graph, config)
    assert taken.ids == keys
    assert taken.to_arrow()["gain"].to_pylist() == pytest.approx(gains, rel=1e-12, abs=1e-300)


def _propagation(n: int, edges: Any) -> Any:
    from mig_spark.kernels.labels.propagation import build_propagation

    i, j, w = (np.array([e[k] for e in edges], kind) for k, kind in enumerate((np.int32, np.int32, np.float64)))
    return build_propagation(n, i, j, w, prop_weight=1.0, normalize="receiver")


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_true_and_false_are_its_ends_to_the_bit(gain: Any) -> None:
    table = pool()
    for word, number in ((True, 1.0), (True, 1), (False, 0.0), (False, 0)):
        assert build_part(SelectConfig, {"norm": number}, where="here").norm is word
        one, other = select(table, 60, norm=word, gain=gain), select(table, 60, norm=number, gain=gain)
        assert one.to_arrow().equals(other.to_arrow())
        assert one.certificate == other.certificate
    rows = next(pack_batches(iter(table.to_batches()), pa.array(LABELS), block_rows=600, norm=True)).block.rows
    # today's division, whatever computes powers
    plain = next(pack_batches(iter(table.to_batches()), pa.array(LABELS), block_rows=600, norm=False)).block.rows
    assert sorted(rows.scores) == sorted(plain.scores / np.diff(plain.label_ptr)[plain.group_of(np.arange(600))])
    half, none, whole = (labels_a_row(select(table, 60, norm=g).to_arrow()) for g in (0.5, 0.0, 1.0))
    assert whole < half < none


@pytest.mark.parametrize("gain", ["gradient", "exact"])
@pytest.mark.parametrize("seed", [0, 1])
def test_auto_is_the_least_power_with_few_enough_labels(gain: Any, seed: int) -> None:
    table = pool(seed=seed)
    found = select(table, 60, norm="auto", gain=gain, upper_bound=False)
    points, usual = told(found)["points"], labels_a_row(table)
    assert [p["gamma"] for p in points] == list(GRID[: len(points)])
    scores = dict(zip(table["id"].to_pylist(), table["score"].to_pylist(), strict=True))
    for p in points:
        plain = select(table, 60, norm=p["gamma"], gain=gain, upper_bound=False)
        assert p["labels_a_row"] == pytest.approx(labels_a_row(plain.to_arrow()))
        assert p["mean_score"] == pytest.approx(np.mean([scores[i] for i in plain.ids]))
    assert all(p["labels_a_row"] > MOST * usual for p in points[:-1])
    assert points[-1]["labels_a_row"] <= MOST * usual
    assert 1 < len(points) < len(GRID)
    assert told(found)["gamma"] == points[-1]["gamma"]
    number = select(table, 60, norm=told(found)["gamma"], gain=gain, upper_bound=False)
    assert found.to_arrow().equals(number.to_arrow())
    assert found.certificate.digests == number.certificate.digests
    assert number.certificate.norm is None
    assert found.notes[0].startswith(f"select.norm: auto takes {points[-1]['gamma']:g}: a selected row has ")
    assert found.counts["rows"] == 600


def test_a_pool_that_needs_none_keeps_its_scores() -> None:
    rng = np.random.default_rng(3)
    mine = [[LABELS[k] for k in rng.choice(12, 2, replace=False)] for _ in range(300)]
    table = pa.table({"id": [f"r{k}" for k in range(300)], "labels": mine, "score": rng.uniform(1, 9, 300)})
    found = select(table, 40, norm="auto")
    assert (told(found)["gamma"], len(told(found)["points"])) == (0.0, 1)
    assert found.to_arrow().equals(select(table, 40).to_arrow())


def test_where_no_power_does_it_takes_1_and_says_so() -> None:
    """Rows with six labels and a hundred times the score."""
    mine = [LABELS[:6]] * 50 + [[name] for name in LABELS] * 50
    table = pa.table({"id": [f"r{k:04d}" for k in range(650)], "labels": mine, "score": [100.0] * 50 + [1.0] * 600})
    found = select(table, 30, norm="auto")
    assert told(found)["gamma"] == 1.0
    assert len(told(found)["points"]) == len(GRID)
    assert "which no exponent brings down to 1.2 times was asked for" in found.notes[0]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([7, 50, 10_000]), st.sampled_from(["local", "rounds"]))
def test_neither_order_nor_blocks_nor_engine_matter(seed: int, block_rows: int, engine: Any) -> None:
    table = pool(400, seed=seed % 3)
    shuffled = table.take(np.random.default_rng(seed).permutation(400))
    how: dict[str, Any] = {"norm": "auto", "upper_bound": False}
    one, other = select(table, 50, **how), select(shuffled, 50, block_rows=block_rows, engine=engine, **how)
    assert told(other) == told(one)
    assert other.to_arrow().equals(one.to_arrow())


def test_a_large_pool_is_tried_on_a_sample_and_too_small_a_sample_tells_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trials, "SAMPLED_ROWS", 400)
    table = pool(4000)
    found = told(select(table, 800, norm="auto"))
    assert 300 < found["rows"] < 500
    assert found["by"] == "labels"
    assert told(select(table, 800, norm="auto", seed=1))["points"] != found["points"]
    monkeypatch.setattr(trials, "MOST_ROWS", 200)
    few = select(table, 50, norm="auto")
    assert (told(few)["by"], told(few)["gamma"], told(few)["points"]) == ("default", 0.0, [])
    assert "auto stays at 0, the published value: " in few.notes[0]
    assert few.to_arrow().equals(select(table, 50).to_arrow())


def test_a_selection_that_is_resumed_goes_on_with_the_power_it_began_with() -> None:
    table, graph = pool(), LabelGraph.without_edges(LABELS)
    config = SelectConfig(budget=60, norm="auto", phi={"b": "auto"}, target={"tau": 0.5}, upper_bound=False)
    rows = ArrowRows.of(table, config)
    whole = select_rows(rows, graph, config)
    for upto in (1, 30, 59):
        again = select_rows(rows, graph, config, resume=whole.ids[:upto])
        assert again.to_arrow().equals(whole.to_arrow())
        for name in ("norm", "balance", "target"):
            assert getattr(again.certificate, name) == getattr(whole.certificate, name)
    # chosen in this order: each is what it is with the numbers of those before
    gamma = told(whole)["gamma"]
    assert 0 < gamma < 1
    next_ = select(table, 60, norm=gamma, phi={"b": "auto"}, upper_bound=False)
    assert next_.certificate.balance == whole.certificate.balance
    last = select(table, 60, norm=gamma, phi={"b": next_.certificate.balance["b"]}, target={"tau": 0.5})
    assert last.certificate.target == whole.certificate.target
    assert last.ids == whole.ids
    assert told(select(table, 60, norm="auto"))["points"] == told(whole)["points"]


def test_whatever_looks_at_a_selection_goes_by_its_number() -> None:
    auto = build_part(SelectConfig, {"norm": "auto", "seed": 4}, where="here")
    for gamma, norm in ((0.3, 0.3), (0.0, False), (1.0, True)):
        record = json.loads(json.dumps({"norm": {"gamma": gamma}}))
        assert settled(auto, record) == SelectConfig(norm=norm)
    for certificate in (None, {}, {"norm": None}):
        with pytest.raises(InputError, match=r"select\.norm is auto, and no selection on record .* give the number"):
            settled(auto, certificate)
    with pytest.raises(AssertionError):
        _ = auto.label_exponent


def test_quotas_and_a_cost_do_not_stand_in_the_way() -> None:
    table = pool().append_column("kind", pa.array(["xy"[k % 2] for k in range(600)]))
    table = table.append_column("price", pa.array([1.0 + k % 3 for k in range(600)]))
    quotas, cost = {"column": "kind", "limits": {"x": {"max": 20}}}, {"column": "price", "budget": 100}
    plain = told(select(table, 60, norm="auto"))
    for limit in ({"quotas": quotas}, {"cost": cost}):
        found = select(table, 60, norm="auto", **limit)
        assert told(found) == plain
        assert found.to_arrow().equals(select(table, 60, norm=plain["gamma"], **limit).to_arrow())


def test_the_line_says_how_many_labels_a_row_has() -> None:
    from mig_spark.kernels.selection.label_count import CountPoint

    points = [CountPoint(0.0, 5.0, 9.0), CountPoint(0.1, 3.5, 8.0)]
    line = ChosenNorm(0.1, "labels", 1.2, 500, 50, 5000, 500, 12, 3.125, points).describe()
    assert line == (
        "auto takes 0.1: a selected row has 3.50 labels, 1.12 times the pool's 3.12 (at most 1.2 times was asked for); "
        "tried on 500 of 5,000 rows"
    )
    assert math.isclose(3.5 / 3.125, 1.12)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"norm": "atuo"}, r"select.norm = 'atuo': .*give true, false, a number from 0 to 1, or the word auto"),
        ({"norm": 1.5}, r"select.norm = 1.5: .*a number from 0 to 1"),
        ({"norm": -0.1}, r"select.norm = -0.1: "),
        ({"norm": float("nan")}, r"select.norm = nan: "),
        ({"norm": None}, r"select.norm"),
        ({"norm": "auto", "budget": None, "cost": {"budget": 9}}, "norm: auto tries selections of select.budget rows"),
        ({"norm": 0.5, "strategy": "random"}, "does not go by norm"),
    ],
)
def test_what_it_cannot_be_is_told(section, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config({"pool": {"path": "x"}, "output": {"path": "y"}, "select": section})


@pytest.mark.parametrize("word", ["true", "yes", "on", "false"])
def test_words_of_before_are_as_they_were(word: str) -> None:
    assert build_part(SelectConfig, {"norm": word}, where="here").norm is (word != "false")
