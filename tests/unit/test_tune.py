"""`mig-spark tune` as text and as JSON."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import yaml
from click.testing import CliRunner

from mig_spark import select
from mig_spark.cli import cli
from mig_spark.config import SelectConfig, build_config
from mig_spark.kernels.labels.threshold import choose_threshold
from mig_spark.kernels.selection.frontier import ChosenBalance, FrontierPoint
from mig_spark.kernels.selection.label_count import ChosenNorm, CountPoint
from mig_spark.kernels.selection.target import Attempt, ChosenScale
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.constraints import prepare
from mig_spark.tune import Tuned, _auto, _tried, describe_tuned

FRONTIER = [FrontierPoint(0.5, 8.0, 30.0), FrontierPoint(0.8, 9.6, 20.0), FrontierPoint(0.99, 10.0, 10.0)]
BALANCE = ChosenBalance(0.8, "frontier", 0.95, 500, 100, 5000, 1000, 12, 2.0, FRONTIER)

SCALE = ChosenScale(
    np.array([0.5, 1.5, 0.0]), np.array([0.25, 0.75, 0.0]), "correction 1", 500, 100, 5000, 1000, 2.0,
    [Attempt("plain phi", 0.25, 9.0), Attempt("closed form", 0.3, 8.5), Attempt("correction 1", 0.125, 8.75)],
)  # fmt: skip

POINTS = [CountPoint(0.0, 5.0, 9.0), CountPoint(0.1, 4.5, 8.9), CountPoint(0.2, 3.5, 8.75)]
NORM = ChosenNorm(0.2, "labels", 1.2, 500, 100, 5000, 1000, 12, 3.0, POINTS)


def tuned() -> Tuned:
    rng = np.random.default_rng(0)
    vectors = np.repeat(rng.normal(size=(150, 32)), 4, axis=0) + 0.3 * rng.normal(size=(600, 32))
    threshold, _ = choose_threshold([f"label {k}" for k in range(600)], vectors, seed=0, default=0.75)
    return Tuned(threshold, BALANCE, ["one thing to know"])


def test_the_text_has_the_evidence_and_lines_that_are_a_config():
    found = tuned()
    text = describe_tuned(found)
    assert text.count("graph.threshold: auto takes") == text.count("select.phi.b: auto takes 0.8: it keeps 96.0%") == 1
    # what was chosen is marked in each table
    marked = [float(number) for number in re.findall(r"^ +([0-9.]+) .*<$", text, re.MULTILINE)]
    assert marked == [found.threshold.threshold, 0.8]
    assert "note: one thing to know" in text
    lines = yaml.safe_load(text[text.index("\ngraph:\n") :])
    assert lines == found.config() == {
        "graph": {"threshold": found.threshold.threshold}, "select": {"phi": {"b": 0.8}},
    }  # fmt: skip
    build_config({"pool": {"path": "x"}, "output": {"path": "y"}, **lines})


def test_the_json_has_all_of_it():
    found = tuned()
    plain = json.loads(json.dumps(found.to_dict()))
    assert len(plain["graph.threshold"]["curve"]) == len(found.threshold.curve)
    assert [point["b"] for point in plain["select.phi.b"]["frontier"]] == [0.5, 0.8, 0.99]
    assert plain["config"] == found.config()


def test_how_near_a_target_is_comes_with_every_attempt():
    found = Tuned(None, None, [], SCALE)
    text = describe_tuned(found)
    assert text.startswith("select.target: correction 1 is nearest, with a total variation distance of 0.125")
    assert re.findall(r"^ +correction 1 +0.125 +8.75 <$", text, re.MULTILINE)
    assert text.count("<") == 1
    plain = json.loads(json.dumps(found.to_dict()))["select.target"]
    assert (plain["kept"], plain["labels"], len(plain["attempts"])) == ("correction 1", 2, 3)
    assert tuned().to_dict()["select.target"] is None


def test_a_norm_that_is_chosen_comes_with_its_evidence_and_a_line():
    found = Tuned(None, BALANCE, [], None, NORM)
    text = describe_tuned(found)
    assert text.startswith("select.norm: auto takes 0.2: a selected row has 3.50 labels, 1.17 times the pool's 3.00")
    assert re.findall(r"^ +0.2 +3.50 +8.75 <$", text, re.MULTILINE)
    lines = yaml.safe_load(text[text.index("\nselect:\n") :])
    assert lines == found.config() == {"select": {"norm": 0.2, "phi": {"b": 0.8}}}
    build_config({"pool": {"path": "x"}, "output": {"path": "y"}, **lines})
    assert json.loads(json.dumps(found.to_dict()))["select.norm"]["points"][1]["labels_a_row"] == 4.5
    alone = Tuned(None, None, [], None, NORM)
    assert yaml.safe_load(describe_tuned(alone).partition("\nselect:\n")[2]) == {"norm": 0.2}


def test_nothing_to_choose_is_said_and_gives_no_lines():
    nothing = Tuned(None, None, ["a", "b"])
    assert describe_tuned(nothing) == "note: a\nnote: b"
    assert nothing.to_dict()["config"] == {}


def test_where_b_is_not_chosen_the_reason_is_told():
    for section, words in (
        ({"strategy": "random"}, "strategy random does not go by it"),
        ({"phi": {"kind": "exp"}}, "phi.kind exp has no exponent"),
        ({"budget": None, "cost": {"budget": 9}}, "select.budget is null"),
    ):
        notes: list[str] = []
        assert _auto(SelectConfig(**section), notes) is None
        assert words in notes[0]
    auto = _auto(SelectConfig(phi={"b": 0.3, "a": 0.5}, target={}), [])
    assert (auto.phi.b, auto.phi.a, auto.phi.score_share, auto.target) == ("auto", 0.5, 0.95, None)


def test_the_norm_is_the_one_that_a_run_by_the_config_takes_and_b_is_chosen_by_it():
    rng = np.random.default_rng(0)
    rows = 1500
    labels = [
        sorted({int(x) for x in (rng.pareto(1, int(rng.integers(1, 8))) * 3).astype(int) % 60}) for _ in range(rows)
    ]
    pool = pa.table({
        "id": [f"r{k}" for k in range(rows)], "labels": [[f"l{x}" for x in own] for own in labels],
        "score": rng.random(rows) * 5 + 1,
    })  # fmt: skip
    graph = LabelGraph.without_edges(sorted({f"l{x}" for own in labels for x in own}))
    taken = {}
    for b in (0.3, 0.8):
        given = SelectConfig(budget=150, norm="auto", phi={"b": b})
        work = prepare(ArrowRows.of(pool, given), given)
        norm, balance, scale, notes = _tried(work, graph, given, _auto(given, []), None)
        run = select(pool, 150, norm="auto", phi={"b": b}).certificate
        taken[b] = norm.gamma
        assert (norm.gamma, scale, notes) == (run.norm["gamma"], None, [])
        by_norm = select(pool, 150, norm=norm.gamma, phi={"b": "auto"}).certificate
        assert balance.b == by_norm.balance["b"]
    assert taken[0.3] != taken[0.8]


def test_the_command_is_there():
    done = CliRunner().invoke(cli, ["tune", "--help"])
    assert done.exit_code == 0
    assert "nothing is written" in done.output
