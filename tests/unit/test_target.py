"""`select.target`: against a dense reference of all of it, and what it depends on."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark import build_config, select
from mig_spark.config import SelectConfig, TargetConfig, build_part
from mig_spark.errors import ConfigError, InputError
from mig_spark.kernels.selection import trials
from mig_spark.kernels.selection.target import (
    LEAST_SCALE,
    POWER,
    RATIOS,
    UNWANTED,
    closed_form,
    corrected,
    count_labels,
    distance,
    shares_of,
    target_shares,
)
from mig_spark.labels.label_graph import LabelGraph, graph_of
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.phi import make_phi
from mig_spark.selection.select_rows import select_rows
from mig_spark.selection.settings import settled

from oracles.dense import dense_propagation
from oracles.targets import aim

LABELS = [f"l{k:02d}" for k in range(12)]


def drawn(rng: np.random.Generator, rows: int, labels: int, most: int) -> list[list[int]]:
    """Labels of rows, low numbers more often; every label is on a row."""
    chance = 1.0 / np.arange(1, labels + 1)
    some = [rng.choice(labels, rng.integers(1, most + 1), replace=False, p=chance / chance.sum()) for _ in range(rows)]
    return [sorted({int(k) for k in row} | ({i} if i < labels else set())) for i, row in enumerate(some)]


def table_of(sets: list[list[int]], scores: Any) -> pa.Table:
    ids = [f"r{k:05d}" for k in range(len(sets))]
    return pa.table({"id": ids, "labels": [[LABELS[k] for k in row] for row in sets], "score": scores})


def pool(n: int = 600, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    sets = drawn(rng, n, 12, 3)
    generous = rng.uniform(0.7, 1.4, 12)
    return table_of(sets, [float(rng.gamma(4.0, 2.0) * generous[row].mean()) for row in sets])


def told(found: Any) -> dict[str, Any]:
    assert found.certificate is not None
    assert found.certificate.target is not None
    return found.certificate.target


def shares(found: Any) -> dict[str, float]:
    """Of all labels of the rows selected."""
    counts = Counter(label for row in found.to_arrow()["labels"].to_pylist() for label in row)
    return {label: n / counts.total() for label, n in counts.items()}


@pytest.mark.parametrize("gain", ["gradient", "exact"])
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), tau=st.sampled_from([0.0, 0.5, 1.0]), corrections=st.integers(0, 3),
    b=st.sampled_from([0.5, 0.8]), listed=st.booleans(),
)  # fmt: skip
def test_all_of_it_is_what_a_dense_reference_does(
    tmp_path_factory, gain: Any, seed: int, tau: float, corrections: int, b: float, listed: bool
) -> None:
    rng = np.random.default_rng(seed)
    sets, scores = drawn(rng, 40, 7, 3), rng.uniform(1, 9, 40)
    edges = [(i, j, float(w)) for i in range(7) for j in range(i + 1, 7) if (w := rng.uniform(0.2, 1)) > 0.8]
    weights = [float(sum(k in row for row in sets)) for k in range(7)]
    by = "frequency"
    if listed:
        weights = [float(w) for w in rng.choice([0.0, 1.0, 2.5], 7)]
        weights[int(rng.integers(7))] = 3.0
        file = tmp_path_factory.mktemp("target") / "target.jsonl"
        file.write_text("".join(json.dumps({"label": LABELS[k], "weight": w}) + "\n" for k, w in enumerate(weights)))
        by = str(file)
    rows, kept, distances = aim(
        sets, scores, dense_propagation(7, edges), weights, 12, tau=tau, corrections=corrections, a=1e-3, b=b,
        exact=gain == "exact",
    )  # fmt: skip
    found = select(
        table_of(sets, scores), 12, edges=[(LABELS[i], LABELS[j], w) for i, j, w in edges] or None,
        phi={"a": 1e-3, "b": b}, gain=gain, target={"by": by, "tau": tau, "corrections": corrections},
    )  # fmt: skip
    assert [attempt["distance"] for attempt in told(found)["attempts"]] == pytest.approx(distances)
    names = ["plain phi", "closed form", "correction 1", "correction 2", "correction 3"]
    assert told(found)["kept"] == names[kept]
    assert [attempt["name"] for attempt in told(found)["attempts"]] == names[: corrections + 2]
    assert found.ids == [f"r{k:05d}" for k in rows]
    assert told(found)["distance"] == pytest.approx(min(distances))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1), tau=st.floats(0, 1), b=st.floats(0.05, 0.95), budget=st.integers(1, 60),
    propagation=st.sampled_from(["mig", "invariant"]),
)  # fmt: skip
def test_a_target_is_never_further_away_than_without_it(
    seed: int, tau: float, b: float, budget: int, propagation: Any
) -> None:
    rng = np.random.default_rng(seed)
    table = table_of(drawn(rng, 60, 9, 4), rng.uniform(0, 9, 60))
    found = select(table, budget, phi={"b": b}, target={"tau": tau}, propagation=propagation, upper_bound=False)
    plain = select(table, budget, phi={"b": b}, propagation=propagation, upper_bound=False)
    counts = Counter(label for row in table["labels"].to_pylist() for label in row)
    q = {label: n**tau for label, n in counts.items()}
    q = {label: n / sum(q.values()) for label, n in q.items()}
    near, before = (sum(abs(q[k] - shares(s).get(k, 0.0)) for k in q) / 2 for s in (found, plain))
    assert near <= before + 1e-9
    assert told(found)["distance"] == pytest.approx(near)
    assert told(found)["attempts"][0]["distance"] == pytest.approx(before)
    # the ten furthest are told, with their shares
    furthest = told(found)["furthest"]
    assert len(furthest) == 9
    assert {f["label"]: f["selected"] for f in furthest} == pytest.approx({k: shares(found).get(k, 0.0) for k in q})
    assert [abs(f["target"] - f["selected"]) for f in furthest] == sorted(
        (abs(f["target"] - f["selected"]) for f in furthest), reverse=True
    )


def test_labels_come_much_nearer_to_their_shares_in_the_pool() -> None:
    """What the form is for: b = 0.8 spends the fourth power of a scorer's generosity on a label."""
    found = select(pool(4000), 400, target={}, phi={"b": 0.5}, upper_bound=False)
    attempts = {a["name"]: a["distance"] for a in told(found)["attempts"]}
    assert told(found)["distance"] < 0.4 * attempts["plain phi"]
    assert found.notes[0].startswith("select.target: correction ")
    assert f"of {told(found)['distance']:.3f} between the labels' shares and the target" in found.notes[0]


weights_of_labels = st.lists(st.one_of(st.just(0.0), st.floats(1e-30, 1e100)), min_size=1, max_size=30).filter(any)


@given(weights_of_labels, st.floats(0, 1))
def test_shares_are_a_distribution_over_the_labels_that_have_a_weight(weights: list[float], tau: float) -> None:
    q = target_shares(np.array(weights), tau)
    assert q.sum() == pytest.approx(1.0)
    assert ((q > 0) <= (np.array(weights) > 0)).all()
    if tau == 0.0:
        assert set(q.tolist()) <= {0.0, 1 / sum(w > 0 for w in weights)}
    c = closed_form(q)
    assert (c > 0).tolist() == (q > 0).tolist()
    if q[q > 0].min() > 1e-9:
        assert c[q > 0].mean() == pytest.approx(1.0)
    assert c[q > 0].min() >= LEAST_SCALE


@given(weights_of_labels, st.data())
def test_a_correction_moves_c_towards_the_target_and_no_further_than_its_limits(weights, data) -> None:
    q = target_shares(np.array(weights), 1.0)
    drawn_ids = data.draw(st.lists(st.integers(0, len(q) - 1), max_size=40))
    p, c = shares_of(np.array(drawn_ids, np.int64), len(q)), closed_form(q)
    moved = corrected(c, q, p)
    for k in range(len(q)):
        if q[k] == 0:
            assert moved[k] == 0
        elif p[k] == 0:
            assert moved[k] == pytest.approx(c[k] * RATIOS[1] ** POWER)
        elif moved[k] > LEAST_SCALE:
            assert moved[k] == pytest.approx(c[k] * min(max(q[k] / p[k], RATIOS[0]), RATIOS[1]) ** POWER)
    if drawn_ids:
        assert -1e-12 <= distance(q, p) <= 1 + 1e-12
        assert distance(q, p) == distance(p, q)
        assert distance(q, q) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 1000]))
def test_labels_are_counted_over_all_blocks(seed: int, block_rows: int) -> None:
    rng = np.random.default_rng(seed)
    sets = drawn(rng, 50, 12, 5)
    config = SelectConfig(block_rows=block_rows)
    # some rows have one label set, and so one group
    packed = ArrowRows.of(table_of(sets * 2, np.ones(100)), config).pack(LABELS, config)
    assert count_labels(packed, 12).tolist() == [2 * sum(k in row for row in sets) for k in range(12)]


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([7, 50, 10_000]), st.sampled_from(["local", "rounds"]))
def test_neither_order_nor_blocks_nor_engine_matter(seed: int, block_rows: int, engine: Any) -> None:
    table = pool(400, seed=seed % 3)
    shuffled = table.take(np.random.default_rng(seed).permutation(400))
    how: dict[str, Any] = {"target": {"tau": 0.5}, "upper_bound": False}
    one, other = select(table, 50, **how), select(shuffled, 50, block_rows=block_rows, engine=engine, **how)
    assert told(other) == told(one)
    assert other.to_arrow().equals(one.to_arrow())


def test_a_large_pool_is_tried_on_a_sample_by_the_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SAMPLED_ROWS", 500)
    table = pool(4000)
    found = told(select(table, 800, target={}))
    assert 400 < found["rows"] < 600
    assert (found["pool_rows"], found["budget"]) == (4000, 800)
    assert found["picks"] == round(800 * found["rows"] / 4000)
    again = told(select(table, 800, target={}, seed=1))
    assert again["attempts"] != found["attempts"]
    # a sample tells of the pool: the selection itself is nearer than plain phi would be
    plain = shares(select(table, 800))
    q = Counter(label for row in table["labels"].to_pylist() for label in row)
    before = sum(abs(n / q.total() - plain[label]) for label, n in q.items()) / 2
    assert found["distance"] < 0.7 * before


def test_a_sample_that_would_tell_too_little_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "SAMPLED_ROWS", 100)
    monkeypatch.setattr(trials, "MOST_ROWS", 200)
    table = pool(4000)
    found = select(table, 100, target={"tau": 0.5})
    assert (told(found)["kept"], told(found)["attempts"]) == ("closed form", [])
    assert "would tell too little to try it" in found.notes[0]
    counts = Counter(label for row in table["labels"].to_pylist() for label in row)
    powers = {label: n**0.5 for label, n in counts.items()}
    assert told(found)["scale"] == pytest.approx({k: 12 * w / sum(powers.values()) for k, w in powers.items()})
    assert told(found)["distance"] > 0


def test_a_cost_alone_has_the_closed_form() -> None:
    table = pool().append_column("price", pa.array([1.0 + k % 3 for k in range(600)]))
    cost = {"column": "price", "budget": 100}
    found = select(table, None, cost=cost, target={"corrections": 0})
    assert (told(found)["kept"], told(found)["budget"], told(found)["attempts"]) == ("closed form", None, [])
    assert "without a number of rows to take nothing was tried" in found.notes[0]
    assert found.ids != select(table, None, cost=cost).ids
    with pytest.raises(ConfigError, match=r"target\.corrections try selections .* or corrections: 0"):
        select(table, None, cost=cost, target={})


def test_a_selection_that_is_resumed_goes_on_with_the_c_it_began_with() -> None:
    table, graph = pool(), LabelGraph.without_edges(LABELS)
    config = SelectConfig(budget=60, target={"tau": 0.5}, upper_bound=False)
    rows = ArrowRows.of(table, config)
    whole = select_rows(rows, graph, config)
    for upto in (1, 30, 59):
        again = select_rows(rows, graph, config, resume=whole.ids[:upto])
        assert again.ids == whole.ids
        assert told(again) == told(whole)
    first = select_rows(rows, graph, config, include=whole.ids[:5])
    again = select_rows(rows, graph, config, include=whole.ids[:5], resume=first.ids[:20])
    assert (again.ids, told(again)) == (first.ids, told(first))


def test_rows_that_are_given_or_come_first_count_for_the_pools_shares() -> None:
    table = table_of([[0], [1], [1], [2], [2], [2], [3]], [1.0] * 7)
    ids = table["id"].to_pylist()
    found = select(table, 4, target={"corrections": 0}, given=ids[:1], include=ids[1:2], exclude=ids[6:])
    far = {f["label"]: f["target"] for f in told(found)["furthest"]}
    assert far == pytest.approx({"l00": 1 / 6, "l01": 2 / 6, "l02": 3 / 6})


def test_whatever_looks_at_a_selection_goes_by_its_c() -> None:
    table, graph = pool(), LabelGraph.without_edges(LABELS)
    plain = {"budget": 60, "target": {"tau": 0.5, "corrections": 2}, "upper_bound": False, "seed": 3}
    config = build_part(SelectConfig, plain, where="here")
    rows = ArrowRows.of(table, config)
    whole = select_rows(rows, graph, config)
    certificate = json.loads(json.dumps(whole.certificate.to_dict()))
    number = settled(config, certificate)
    assert number.target.scale == certificate["target"]["scale"]
    again = select_rows(rows, graph, number)
    assert again.to_arrow().equals(whole.to_arrow())
    assert again.certificate.target is None
    assert again.certificate.digests == whole.certificate.digests
    assert settled(number, None) is number
    assert config.target.scale is None
    for record in (None, {}, {"target": None}):
        with pytest.raises(InputError, match=r"select\.target is given, and no selection on record"):
            settled(config, record)


def test_b_is_chosen_first_and_as_if_there_were_no_target() -> None:
    auto: dict[str, Any] = {"phi": {"b": "auto", "score_share": 0.9}, "upper_bound": False}
    both, alone = select(pool(), 60, target={}, **auto), select(pool(), 60, **auto)
    assert both.certificate.balance == alone.certificate.balance
    b = both.certificate.balance["b"]
    number = select(pool(), 60, target={}, phi={"b": b}, upper_bound=False)
    assert (number.ids, told(number)) == (both.ids, told(both))
    assert [note.partition(":")[0] for note in both.notes] == ["select.phi.b", "select.target"]
    settings_ = build_part(SelectConfig, {"phi": auto["phi"], "target": {}, "seed": 2}, where="here")
    done = settled(settings_, both.certificate.to_dict())
    assert (done.phi.b, done.target.scale) == (b, told(both)["scale"])


@pytest.mark.parametrize("phi", [{"b": 0.6, "a": 0.01}, {"kind": "exp", "alpha": 0.3}])
def test_it_is_the_perspective_of_what_the_other_keys_say(phi: dict[str, Any]) -> None:
    """c phi(x / c) of each label's own phi, its weight and b included, and of the invariant one's."""
    edges = pa.table({"src": ["l00"], "dst": ["l01"], "weight": [0.5]})
    graph = graph_of(LABELS[:4], edges, prop_weight=1.0, normalize="receiver")
    own = {"l00": {"weight": 3.0}, "l02": {"b": 0.3, "a": 0.2}}
    before = SelectConfig(phi=phi, propagation="invariant")
    scale = {"l00": 0.25, "l01": 1.0, "l02": 2.0}
    aimed = before.model_copy(update={"target": TargetConfig().with_scale(scale)})
    one, other = make_phi(before, graph, own), make_phi(aimed, graph, own)

    def value(f: Any, k: int, x: float) -> float:
        rise = (x + f.a[k]) ** f.b[k] if f.kind == 0 else 1 - np.exp(-f.a[k] * x)
        return float(f.weight[k] * rise)

    for k, c in enumerate([0.25, 1.0, 2.0]):
        for x in (0.0, 0.7, 30.0):
            assert value(other, k, x) == pytest.approx(c * value(one, k, x / c))
    assert value(other, 3, 5.0) == pytest.approx(UNWANTED * value(one, 3, 5.0))


def lists(tmp_path, weights: dict[str, float]) -> dict[str, str]:
    """The same weights in every form that a list may have."""
    queries = [[label] for label, w in weights.items() for _ in range(int(w))] or [[]]
    written = {
        "a.csv": "label,weight\n" + "".join(f"{label},{w}\n" for label, w in weights.items()),
        "b.jsonl": "".join(json.dumps({"label": label, "weight": w}) + "\n" for label, w in weights.items()),
        "c.json": json.dumps({label: {"weight": w} for label, w in weights.items()}),
        "d.jsonl": "".join(json.dumps({"labels": row, "id": "q"}) + "\n" for row in queries),
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text)
    pq.write_table(pa.table({"labels": pa.array([*queries, None], pa.list_(pa.string()))}), tmp_path / "e.parquet")
    return {name: str(tmp_path / name) for name in (*written, "e.parquet")}


def test_weights_of_a_list_and_queries_that_were_tagged_are_the_same_target(tmp_path) -> None:
    weights = {"l01": 4.0, "l03": 1.0, "l05": 3.0}
    table = pool()
    found = {name: select(table, 60, target={"by": by}) for name, by in lists(tmp_path, weights).items()}
    first = found["a.csv"]
    assert told(first)["by"] == "list"
    assert told(first)["labels"] == 3
    assert {f["label"]: f["target"] for f in told(first)["furthest"]} == pytest.approx(
        {f["label"]: weights.get(f["label"], 0.0) / 8 for f in told(first)["furthest"]}
    )
    for other in found.values():
        assert (other.ids, told(other)) == (first.ids, told(first))
    # a label twice in one query is there once
    (tmp_path / "twice.jsonl").write_text('{"labels": ["l01", "l01", "l03"]}\n')
    (tmp_path / "once.jsonl").write_text('{"labels": ["l01", "l03"]}\n')
    one, other = (select(table, 60, target={"by": str(tmp_path / f"{n}.jsonl")}) for n in ("twice", "once"))
    assert told(one) == told(other)


@pytest.mark.parametrize("gain", ["gradient", "exact"])
def test_labels_that_are_not_wanted_come_last(tmp_path, gain: Any) -> None:
    """A label of weight 0, and one that the list does not name, are worth next to nothing, also to the first row."""
    rng = np.random.default_rng(2)
    sets = [[int(k)] for k in rng.integers(0, 6, 120)]
    table = table_of(sets, rng.uniform(1, 9, 120))
    (tmp_path / "t.csv").write_text("label,weight\nl00,1\nl02,2\nl04,0\n")
    wanted = [f"r{k:05d}" for k, row in enumerate(sets) if row[0] in (0, 2)]
    found = select(table, len(wanted) + 5, gain=gain, target={"by": str(tmp_path / "t.csv")})
    assert told(found)["kept"] != "plain phi"
    assert set(found.ids[: len(wanted)]) == set(wanted)
    assert set(told(found)["scale"]) == {"l00", "l02"}


def test_labels_that_no_row_has_are_told_and_the_rest_is_the_whole(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("label,weight\nl00,1\nl02,2\nelsewhere,1\n")
    (tmp_path / "rest.csv").write_text("label,weight\nl00,1\nl02,2\n")
    with caplog.at_level(logging.WARNING, logger="mig_spark"):
        found = select(pool(), 60, target={"by": str(tmp_path / "t.csv")})
    line = "select.target: 1 of its 3 labels, with 25.0% of its weight, are on no row that can be taken"
    assert line in caplog.text
    assert found.notes[0].startswith(line)
    assert told(found) == told(select(pool(), 60, target={"by": str(tmp_path / "rest.csv")}))


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("label,weight\nl00,-1\n", ConfigError, r"'l00' has the weight -1.0; weights are numbers from 0"),
        ("label,weight\nl00,many\n", ConfigError, "'l00' has the weight nan"),
        ("label,weight\nl00,\n", ConfigError, "'l00' has the weight None"),
        ("label,weight\nl00,1e200\n", ConfigError, "to 1e[+]100"),
        ("label,weight\nl00,1\nl00,2\n", InputError, "1 rows name a label that another row names; keep one"),
        ("label,weight\nelsewhere,1\n", InputError, r"none of its 1 labels with a weight \(elsewhere\) is on a row"),
        ("label,weight\nl00,0\n", InputError, r"none of its 0 labels with a weight \(none\)"),
        (
            "label,share\nl00,1\n",
            InputError,
            "label and weight are needed, or labels, a list in each row; it has label",
        ),
        ("name\nl00\n", InputError, "any of label, weight, labels are needed; it has name"),
        ("labels\nl00\n", InputError, "row 1 has the labels 'l00', which are no list of texts"),
    ],
)
def test_a_list_that_is_no_target_is_told(tmp_path, text: str, error: type[Exception], words: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(error, match=f"select.target.by = .*t.csv: .*{words}") as told_:
        select(pool(), 10, target={"by": str(tmp_path / "t.csv")})
    assert "\n" not in str(told_.value)


def test_a_list_that_is_not_there_and_a_pool_without_labels_are_told(tmp_path) -> None:
    with pytest.raises(InputError, match=r"select\.target\.by = .*none\.csv: "):
        select(pool(), 10, target={"by": str(tmp_path / "none.csv")})
    bare = pa.table({"id": ["a", "b"], "labels": pa.array([[], []], pa.list_(pa.string())), "score": [1.0, 2.0]})
    with pytest.raises(InputError, match="no row that can be taken has a label"):
        select(bare, 1, target={})


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"target": {"tau": 1.5}}, r"select.target.tau = 1.5"),
        ({"target": {"tau": -0.1}}, r"select.target.tau = -0.1"),
        ({"target": {"corrections": 4}}, r"select.target.corrections = 4"),
        ({"target": {"by": ""}}, "select.target.by"),
        ({"target": {"scale": {"a": 1}}}, "select.target.scale"),
        ({"target": {}, "budget": None, "cost": {"budget": 9}}, "or corrections: 0"),
        ({"target": {}, "strategy": "random"}, "random does not go by target"),
        ({"seed": 3}, "unless phi.b or norm is auto or there is a target"),
    ],
)
def test_what_a_target_cannot_be_is_told(section, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config({"pool": {"path": "x"}, "output": {"path": "y"}, "select": section})


def test_without_a_target_nothing_changes() -> None:
    assert select(pool(), 10).certificate.target is None
    assert build_config({"pool": {"path": "x"}, "output": {"path": "y"}}).select.target is None
