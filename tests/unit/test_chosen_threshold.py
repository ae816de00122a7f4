"""`graph.threshold: auto`: the curve against networkx and all pairs, the rules, and what the choice depends on."""

from __future__ import annotations

import json
import logging
from itertools import pairwise

import networkx as nx
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark import select
from mig_spark.config import build_config
from mig_spark.curation.stages import STAGES
from mig_spark.errors import ConfigError
from mig_spark.kernels.labels import threshold
from mig_spark.kernels.labels.similarity import similarity_edges
from mig_spark.kernels.labels.threshold import (
    LEAST_LABELS,
    LEAST_VARIANTS,
    STEPS,
    choose_threshold,
    clear_of_giant,
    component_curve,
    null_cosine,
)
from mig_spark.labels import edges as label_edges
from mig_spark.summary import summarise

LEAST = {"pool": {"path": "x"}, "output": {"path": "y"}}


def names(n: int) -> list[str]:
    return [f"label {k:05d}" for k in range(n)]


def families(n: int, *, d: int = 48, size: int = 4, spread: float = 0.35, seed: int = 0) -> np.ndarray:
    """Labels in families of `size`, alike within and unrelated between."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(-(-n // size), d))
    return np.repeat(centres, size, axis=0)[:n] + spread * rng.normal(size=(n, d))


def graph_at(vectors: np.ndarray, least: float) -> nx.Graph:
    i, j, _ = similarity_edges(vectors, least)
    graph = nx.empty_graph(len(vectors))
    graph.add_edges_from(zip(i.tolist(), j.tolist(), strict=True))
    return graph


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 60), d=st.integers(2, 6), seed=st.integers(0, 10_000), floor=st.integers(-20, 99))
def test_the_curve_is_that_of_networkx_at_every_threshold(n: int, d: int, seed: int, floor: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    curve = component_curve(n, *similarity_edges(vectors, floor / STEPS), floor)
    assert [p.threshold for p in curve] == [k / STEPS for k in range(STEPS, floor - 1, -1)]
    for point in curve[:: max(1, len(curve) // 10)]:
        graph = graph_at(vectors, point.threshold)
        sizes = sorted((len(c) for c in nx.connected_components(graph)), reverse=True)
        assert (point.largest, point.components) == (sizes[0], len(sizes))
        assert point.edges == pytest.approx(2 * graph.number_of_edges() / n, abs=1e-4)
        assert point.susceptibility == pytest.approx(sum(s**2 for s in sizes[1:]) / n, abs=1e-4)
    for stricter, looser in pairwise(curve):
        assert stricter.edges <= looser.edges
        assert stricter.largest <= looser.largest
        assert stricter.components >= looser.components


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(LEAST_LABELS, LEAST_LABELS + 50), st.integers(0, 3))
def test_it_depends_on_labels_and_seed_alone(made: int, n: int, seed: int) -> None:
    vectors, labels = families(n, seed=made), names(n)
    chosen, edges = choose_threshold(labels, vectors, seed=seed, default=0.75)
    order = np.random.default_rng(made).permutation(n)
    again, other = choose_threshold([labels[k] for k in order], vectors[order], seed=seed, default=0.75)
    assert again == chosen

    def pairs(found, order):
        return {(*sorted((int(order[a]), int(order[b]))), w) for a, b, w in zip(*found, strict=True)}

    assert pairs(other, order) == pairs(edges, np.arange(n))


def test_the_seed_draws_the_labels_whose_pairs_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threshold, "SAMPLED_LABELS", 20)
    vectors = families(300)
    sampled = {
        seed: tuple(threshold._random_cosines(names(300), vectors, seed).tolist()) for seed in (0, 1, 0)
    }  # fmt: skip
    assert len(sampled[0]) == 20 * 19 // 2
    assert len(threshold._random_cosines(names(300), vectors, -1)) == len(sampled[0])
    assert sampled[0] != sampled[1]
    assert sampled[0] == tuple(threshold._random_cosines(names(300), vectors, 0).tolist())


def test_the_edges_are_those_of_the_threshold_that_was_chosen() -> None:
    vectors = families(600)
    chosen, edges = choose_threshold(names(600), vectors, seed=0, default=0.75)
    for got, want in zip(edges, similarity_edges(vectors, chosen.threshold), strict=True):
        np.testing.assert_array_equal(got, want)
    assert chosen.threshold == max(chosen.components, chosen.null)
    point = chosen.at()
    assert point is not None
    assert point.edges == pytest.approx(2 * len(edges[0]) / 600, abs=1e-4)
    json.dumps(chosen.to_dict())


def test_families_come_out_as_components() -> None:
    """Families of four at a cosine of about 0.9 among unrelated labels: it joins them and nothing else."""
    vectors = families(600)
    chosen, (i, j, _) = choose_threshold(names(600), vectors, seed=0, default=0.99)
    assert 0.45 < chosen.threshold < 0.75
    assert (i // 4 == j // 4).mean() > 0.98
    assert len(i) > 0.95 * 600 * 3 / 2


def test_it_stays_above_the_giant_component() -> None:
    """A chain of neighbours through all labels: whatever joins one link joins all."""
    angle = np.linspace(0, np.pi, 600)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    chosen, (i, _, _) = choose_threshold(names(600), vectors, seed=0, default=0.75)
    assert (chosen.by, chosen.threshold, len(i)) == ("components", 1.0, 0)
    below = component_curve(600, *similarity_edges(vectors, 0.99), 99)[-1]
    assert (chosen.curve[0].largest, below.largest) == (1, 600)


def test_clear_of_the_giant_is_above_the_peak_and_within_the_limit() -> None:
    def curve(*points):
        return [threshold.CurvePoint(t, 0.0, largest, 0, chi) for t, largest, chi in points]

    assert clear_of_giant(curve((1.0, 1, 1.0), (0.9, 3, 2.0), (0.8, 9, 1.5)), 100) == 0.8
    assert clear_of_giant(curve((1.0, 1, 1.0), (0.9, 3, 2.0), (0.8, 11, 5.0), (0.7, 80, 2.0)), 100) == 0.9
    # more than 1% where there are many labels
    assert clear_of_giant(curve((1.0, 1, 1.0), (0.9, 3, 2.0), (0.8, 60, 5.0), (0.7, 800, 9.0)), 6000) == 0.8
    # the peak decides where it comes before the limit
    assert clear_of_giant(curve((1.0, 1, 1.0), (0.9, 3, 2.0), (0.8, 9, 5.0), (0.7, 80, 2.0)), 100) == 0.9
    # no threshold is clear of it
    assert clear_of_giant(curve((1.0, 50, 1.0), (0.9, 80, 2.0)), 100) == 1.0


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 10_000), st.floats(-0.2, 0.5), st.floats(0.01, 0.2))
def test_the_null_is_the_tail_of_a_normal_distribution_of_fishers_z(n: int, middle: float, width: float) -> None:
    from scipy import stats

    z = stats.norm(middle, width).ppf((np.arange(20_000) + 0.5) / 20_000)
    want = stats.norm(middle, width).isf(min(0.5, 0.1 / (n - 1)))
    assert np.arctanh(null_cosine(np.tanh(z), n)) == pytest.approx(want, abs=0.02 * width)


def test_more_labels_have_a_stricter_null_and_few_related_pairs_do_not_move_it() -> None:
    sample = np.tanh(np.random.default_rng(0).normal(0.15, 0.09, 100_000))
    assert null_cosine(sample, 100) < null_cosine(sample, 1000) < null_cosine(sample, 100_000)
    related = np.concatenate([sample, np.full(500, 0.9)])
    assert null_cosine(related, 1000) == pytest.approx(null_cosine(sample, 1000), abs=0.005)
    assert null_cosine(np.ones(10), 1000) == pytest.approx(1.0, abs=1e-5)


def with_variants(pairs: int, cosine: float) -> tuple[list[str], np.ndarray]:
    """`pairs` labels with another spelling each, at a cosine of 1 (every second) or `cosine`, among 500 others."""
    rng = np.random.default_rng(3)
    labels, vectors = names(500), rng.normal(size=(500, 64))
    for k in range(2 * pairs):
        one = rng.normal(size=64)
        across = rng.normal(size=64)
        across -= one * (across @ one) / (one @ one)
        other = (
            one
            if k % 2
            else cosine * one / np.linalg.norm(one) + np.sqrt(1 - cosine**2) * across / np.linalg.norm(across)
        )
        labels += [f"Web Site {k:03d}", f"web-site{k:03d}"]
        vectors = np.concatenate([vectors, [one, other]])
    return labels, vectors


def test_known_variants_decide_where_there_are_enough_that_the_model_tells_apart() -> None:
    chosen, _ = choose_threshold(*with_variants(LEAST_VARIANTS, 0.905), seed=0, default=0.75)
    assert (chosen.variant_pairs, chosen.by, chosen.threshold) == (LEAST_VARIANTS, "variants", 0.9)
    fewer, _ = choose_threshold(*with_variants(LEAST_VARIANTS - 1, 0.905), seed=0, default=0.75)
    assert (fewer.variant_pairs, fewer.variants) == (LEAST_VARIANTS - 1, None)
    assert fewer.by in ("components", "null")


def test_too_few_labels_have_the_models_default() -> None:
    vectors = families(LEAST_LABELS - 1)
    chosen, edges = choose_threshold(names(LEAST_LABELS - 1), vectors, seed=0, default=0.77)
    assert (chosen.threshold, chosen.by, chosen.curve) == (0.77, "default", [])
    np.testing.assert_array_equal(edges[2], similarity_edges(vectors, 0.77)[2])
    none, edges = choose_threshold([], np.empty((0, 1)), seed=0, default=0.9)
    assert (none.threshold, none.labels, len(edges[0])) == (0.9, 0, 0)


def test_what_is_no_vector_a_label_is_refused() -> None:
    with pytest.raises(ValueError, match="600 labels, 600 of them different, and 601 vectors"):
        choose_threshold(names(600), families(601), seed=0, default=0.9)
    with pytest.raises(ValueError, match="2 labels, 1 of them different"):
        choose_threshold(["a", "a"], families(2), seed=0, default=0.9)
    with pytest.raises(ValueError, match="NaN or infinite"):
        choose_threshold(names(600), np.full((600, 2), np.nan), seed=0, default=0.9)


def test_labels_of_one_vector_are_no_graph() -> None:
    chosen, _ = choose_threshold(names(600), np.ones((600, 3)), seed=0, default=0.75)
    assert chosen.threshold == 1.0


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"threshold": "atuo"}, r"graph.threshold = 'atuo': .*number.*or the word auto"),
        ({"threshold": 1.5}, r"graph.threshold = 1.5: give at most 1, or the word auto"),
        ({"threshold": "auto", "edges_path": "e.jsonl"}, "edges_path brings edges without them"),
        ({"threshold": "auto", "edges": "cooccurrence"}, "embeds no label"),
    ],
)
def test_what_auto_cannot_be_is_told(section: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config({**LEAST, "graph": section})


def test_the_stage_goes_by_the_word_and_the_seed() -> None:
    def settings_of(**more: object):
        return STAGES["graph"].settings(build_config({**LEAST, **more}))

    auto = {"graph": {"threshold": "auto"}}
    assert settings_of(**auto)["graph"]["threshold"] == "auto"
    assert settings_of(**auto) != settings_of(**auto, seed=1)
    # a seed that decides nothing makes no stage run again
    assert settings_of() == settings_of(seed=1)
    assert build_config({**LEAST, **auto}).graph.resolved_threshold() == 0.75


@pytest.fixture
def unlike_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of 600 labels in families of four, without a model."""
    vectors = dict(zip(names(600), families(600), strict=True))
    monkeypatch.setattr("mig_spark.api.embed_labels_here", lambda found, model: np.stack([vectors[x] for x in found]))


def test_select_says_what_it_chose(unlike_words: None, caplog: pytest.LogCaptureFixture) -> None:
    table = pa.table({"id": range(600), "labels": [[x] for x in names(600)], "score": [1.0] * 600})
    with caplog.at_level(logging.INFO, logger="mig_spark"):
        found = select(table, 10, model="some-model", threshold="auto")
    told = found.counts["threshold_chosen"]
    line = f"graph.threshold: auto takes {told['threshold']:g} by "
    assert line in caplog.text
    assert any(note.startswith(line) for note in found.notes)
    number = select(table, 10, edges=_edges_at(told["threshold"]), threshold=None)
    assert found.ids == number.ids


def _edges_at(least: float) -> list[tuple[str, str, float]]:
    i, j, w = similarity_edges(families(600), least)
    return [(names(600)[a], names(600)[b], x) for a, b, x in zip(i.tolist(), j.tolist(), w.tolist(), strict=True)]


def test_select_refuses_auto_without_a_model() -> None:
    table = pa.table({"id": [1], "labels": [["a"]], "score": [1.0]})
    with pytest.raises(ConfigError, match="edges of your own"):
        select(table, 1, edges=[("a", "b", 1.0)], threshold="auto")
    with pytest.raises(ConfigError, match="no edges that it could cut"):
        select(table, 1, threshold="auto")


def test_the_line_names_every_rule() -> None:
    chosen, _ = choose_threshold(names(600), families(600), seed=0, default=0.75)
    line = label_edges.describe_threshold(chosen)
    assert all(rule in line for rule in ("the component curve", "random pairs", "known variants none"))
    few, _ = choose_threshold(names(3), families(3), seed=0, default=0.75)
    assert label_edges.describe_threshold(few) == "auto takes 0.75, the model's default: 3 labels are too few to tell"


def test_the_last_lines_of_a_run_say_what_was_chosen() -> None:
    chosen, _ = choose_threshold(names(600), families(600), seed=0, default=0.75)
    graph = {"labels": 600, "similarity_edges": 5, "threshold_chosen": chosen.to_dict()}
    run = {"run_id": "r", "seconds": {}, "certificate": {}, "counts": {"graph": graph}}
    assert f"threshold    {chosen.threshold:g}  (graph.threshold: auto, by components)" in summarise(run, ("graph",))
    assert "threshold" not in summarise({**run, "counts": {"graph": {**graph, "threshold_chosen": None}}}, ("graph",))
