"""`mig-spark evaluate` on a pool whose tasks are known: what is measured, and what is left out."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from test_curation import STAGES_RUN, make_config, write
from tiny_models import save_causal

from mig_spark import run_pipeline, select
from mig_spark.contracts import ANNOTATED, EVIDENCE, SELECTION
from mig_spark.errors import ContractError, DependencyError, InputError
from mig_spark.evaluate import describe_evidence, evaluate
from mig_spark.evaluation.sample import draw_sample
from mig_spark.evaluation.strategies import Strategies
from mig_spark.evaluation.table import read_evidence
from mig_spark.labels.label_graph import load_graph
from mig_spark.lakehouse.tables import Store

TASKS = ("count the apples", "translate into French", "name a river", "write a poem")


def task_records(count: int = 120) -> list[dict[str, object]]:
    """Rows whose label is their task's; the first task's answers are the longest and score highest."""
    rng = random.Random(3)
    found = []
    for k in range(count):
        task = rng.randrange(len(TASKS))
        found.append({
            "id": f"r{k:03d}",
            "prompt": f"{TASKS[task]}: {rng.choice('abcdefghij') * 3} {rng.randrange(1000)}",
            "response": "word " * (60 if task == 0 else rng.randrange(2, 8)),
            "labels": [f"label {task}"],
            "score": 9.0 if task == 0 else round(rng.uniform(3, 5), 2),
            "task": TASKS[task],
        })  # fmt: skip
    return found


@pytest.fixture(scope="module")
def made(spark, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    write(folder / "in", "a.jsonl", task_records())
    config = make_config(folder, evaluate={
        "stratum": "task", "rows": 80, "prompts": 20, "budgets": [0.1, 0.2], "draws": 4, "orders": 2,
        "strategies": ["as_long", "longest", "top", "instag"],
    })  # fmt: skip
    run_pipeline(spark, config, STAGES_RUN)
    return config


def with_(config, **evaluated):
    return config.model_copy(update={"evaluate": config.evaluate.model_copy(update=evaluated)})


def test_what_is_measured_is_written_and_read_back(spark, made):
    store = Store(spark, made.output)
    found = evaluate(spark, made)
    assert (found.own, found.rows, found.prompts, found.rows_in_all, found.strata) == ("mig", 80, 20, 120, 4)
    back = read_evidence(store)
    assert back is not None
    assert back.evidence == found
    assert back.of_this_pool
    assert {line.strategy for line in found.lines} == {"random", "mig", "as_long", "longest", "top", "instag"}
    value = {(x.share, x.strategy, x.measure): x.value for x in found.lines}
    # the longest and the best are of one task; two of the four labels are joined
    assert value[0.1, "mig", "strata"] >= 3
    assert value[0.1, "longest", "strata"] == value[0.1, "top", "strata"] == 1
    assert value[0.1, "mig", "own"] > value[0.1, "longest", "own"]
    assert value[0.1, "mig", "distance"] < value[0.1, "longest", "distance"]
    assert value[0.1, "longest", "length"] > 2
    assert "mig is ahead of" in describe_evidence(found)
    # the same again is the same, and a run has nothing to do because of it
    assert evaluate(spark, made).lines == found.lines
    assert run_pipeline(spark, made, STAGES_RUN)["skipped"].keys() == set(STAGES_RUN)


def test_the_rows_are_those_that_the_strategies_take(spark, made):
    """Against `select()` from Python, on the same rows with the same names."""
    store = Store(spark, made.output)
    sample = draw_sample(store, made)
    strategies = Strategies(sample, made, lambda: load_graph(store), spark)
    n = sample.pool.num_rows
    for name, budget, run, options in (
        ("mig", 9, 0, {"edges": [("label 0", "label 1", 0.95)]}), ("random", 9, 3, {"strategy": "random", "seed": 3}),
        ("longest", 9, 1, {"strategy": {"kind": "top", "by": "answer_characters"}}),
    ):  # fmt: skip
        number = np.random.default_rng(run).permutation(n)
        table = sample.pool.select(["labels", "score", "answer_characters"]).append_column(
            "id", [[f"{k:09d}" for k in number]]
        )  # fmt: skip
        expected = [int(k) for k in select(table, budget, upper_bound=False, **options).ids] if name == "mig" else [
            int(k) for k in select(table, budget, **options).ids
        ]  # fmt: skip
        assert number[strategies.select(name, budget, run)].tolist() == expected
    ids = set(sample.pool["id"].to_pylist())
    assert len(ids) == 80
    assert ids <= {r["id"] for r in store.read(ANNOTATED).select("id").collect()}
    # the same number of each task is kept back
    assert sorted(np.bincount(sample.asked["_stratum"].to_numpy())) == [5, 5, 5, 5]


def test_limits_are_left_out_and_told_and_label_parameters_are_kept(spark, made, tmp_path):
    parameters = tmp_path / "parameters.json"
    parameters.write_text(json.dumps({"label 2": {"weight": 0.0001}}))
    quotas = {"column": "source", "each": {"max": 50}}
    weights = tmp_path / "weights.json"
    weights.write_text(json.dumps({"label 0": {"weight": 1}, "label 3": {"weight": 3}}))
    keys = {"budget": 10, "quotas": quotas, "label_parameters": str(parameters), "target": {"by": str(weights)}}
    section = type(made.select).model_validate(keys)
    config = with_(made, strategies=[], budgets=[0.04], stratum="source")
    found = evaluate(spark, config.model_copy(update={"select": section}))
    assert any("without select.quotas" in note for note in found.notes)
    assert any("all rows of the sample have the same source" in note for note in found.notes)
    assert {line.measure for line in found.lines} == {"distance", "novelty", "length"}
    own = type(made.select).model_validate({"budget": 10, "label_parameters": "labels"})
    assert evaluate(spark, config.model_copy(update={"select": own})).own == "mig"
    by_task = type(made.select).model_validate({"budget": 10, "strategy": {"kind": "top", "by": "characters"}})
    assert (
        "characters"
        in draw_sample(Store(spark, made.output), made.model_copy(update={"select": by_task})).pool.column_names
    )
    store = Store(spark, made.output)
    sample = draw_sample(store, made)
    labels = sample.pool["labels"].to_pylist()
    for wanted, config in ((True, made), (False, made.model_copy(update={"select": section}))):
        strategies = Strategies(sample, config, lambda: load_graph(store), spark)
        taken = {labels[k][0] for k in strategies.select("mig", 4, 0).tolist()}
        assert ("label 2" in taken) == wanted


@pytest.mark.model
@pytest.mark.long
def test_a_model_learns_from_each_selection(spark, made, tmp_path):
    from mig_spark.config.evaluate import TrainConfig

    folder = save_causal(tmp_path / "lm", "llama", bos=True, template=True)
    how = TrainConfig(model=folder, steps=3, batch_tokens=64, max_tokens=64, prompts=12, runs=2, budget=0.1,
                      device="cpu", learning_rate=0.01, threads=1)  # fmt: skip
    found = evaluate(spark, with_(made, strategies=["longest"], budgets=[0.1], train=how))
    losses = {line.strategy: line for line in found.lines if line.measure == "loss"}
    assert losses.keys() == {"random", "mig", "longest"}
    assert all(line.runs == 2 and line.rows == 8 and 0 < line.value < 20 for line in losses.values())
    assert found.training["loss_before"] > min(line.value for line in losses.values())
    assert found.training["prompts"] == 12
    back = read_evidence(Store(spark, made.output))
    assert back is not None
    assert back.evidence == found
    assert f"loss: of {folder}" in describe_evidence(found)


def test_bad_input_is_one_line_and_leaves_what_was_there(spark, made, tmp_path):
    store = Store(spark, made.output)
    if not store.exists(EVIDENCE):
        evaluate(spark, made)
    before = store.version(EVIDENCE)
    with pytest.raises(ContractError, match=r"evaluate\.stratum = taks: none of 100 rows has it"):
        evaluate(spark, with_(made, stratum="taks"))
    from mig_spark.config.evaluate import TrainConfig

    with pytest.raises(DependencyError, match="no model at /nowhere"):
        evaluate(spark, with_(made, train=TrainConfig(model="/nowhere")))
    elsewhere = made.output.model_copy(update={"path": str(tmp_path / "other")})
    with pytest.raises(InputError, match="run the stage `annotate` first"):
        evaluate(spark, made.model_copy(update={"output": elsewhere}))
    write(tmp_path / "in", "a.jsonl", task_records(12))
    small = make_config(tmp_path, select={"budget": 2})
    run_pipeline(spark, small, ("ingest", "annotate", "graph"))
    with pytest.raises(InputError, match="the annotated pool has 12 rows, and fewer than 20"):
        evaluate(spark, small)
    assert store.version(EVIDENCE) == before
    assert store.read(SELECTION).count() == 10


@pytest.mark.long
def test_a_report_is_made_anew_after_an_evaluation(spark, made):
    run_pipeline(spark, made, ("report",))
    assert run_pipeline(spark, made, ("report",), fresh=False)["skipped"].keys() == {"report"}
    evaluate(spark, with_(made, strategies=["longest"], budgets=[0.1]))
    assert not run_pipeline(spark, made, ("report",), fresh=False)["skipped"]
