"""What a schedule relies on: stages that are started alone, rows that are added, and what is on record of changes."""

from __future__ import annotations

import pytest
from test_curation import STAGES_RUN, chosen, make_config, record, some_records, write

from mig_spark import run_pipeline
from mig_spark.config import GatesConfig
from mig_spark.contracts import SELECTION_CHANGES
from mig_spark.curation.history import past_runs
from mig_spark.curation.replay import replay_run
from mig_spark.errors import GateError, InputError
from mig_spark.lakehouse.tables import Store


def test_a_stage_alone_goes_by_what_the_tables_are_made_from(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 20))
    config = make_config(tmp_path)
    run_pipeline(spark, config, STAGES_RUN, run_id="first")
    store = Store(spark, config.output)
    before = chosen(store)
    write(
        tmp_path / "in", "b.jsonl", [*some_records(20, 3, seed=5), *({"id": f"x{k}", "messages": []} for k in range(7))]
    )
    strict = config.model_copy(update={"gates": GatesConfig(max_rejected_share=0.1)})
    for stages, name in ((STAGES_RUN, "all"), (("select",), "alone")):
        with pytest.raises(GateError, match=r"max_rejected_share: 0\.23"):
            run_pipeline(spark, strict, stages, run_id=name)
    assert chosen(store) == before
    run_pipeline(spark, config, ("select",), run_id="loose")
    [told] = past_runs(store, run_id="loose")
    assert (told.counts["read"], told.counts["pool"]) == (30, 23)
    assert {fact["path"].rpartition("/")[2] for part in told.inputs["pool"] for fact in part["files"]} == {
        "a.jsonl", "b.jsonl"
    }  # fmt: skip


@pytest.mark.long
def test_rows_are_added_where_data_or_settings_have_changed(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 40))
    more = {"mode": "incremental", "incremental": {"select": "extend", "add": 3}}
    config = make_config(tmp_path, **more)
    store = Store(spark, config.output)

    def rows(changed, name, **options):
        run_pipeline(spark, changed, STAGES_RUN, run_id=name, **options)
        return len(chosen(store))

    first = rows(config, "first")
    gates = config.model_copy(update={"gates": GatesConfig(max_rejected_share=0.9)})
    assert rows(gates, "another-gate") == first
    assert rows(gates, "fresh", fresh=True) == first
    assert replay_run(spark, gates, "fresh").same
    write(tmp_path / "in", "b.jsonl", some_records(40, 5, seed=5))
    assert rows(gates, "more") == first + 3
    assert replay_run(spark, gates, "more").same
    other = config.model_copy(update={"select": config.select.model_copy(update={"gain": "exact"})})
    assert rows(other, "other-settings") == first + 6


@pytest.mark.long
def test_a_row_that_changed_and_is_chosen_again_left_and_entered(spark, tmp_path):
    records = some_records(0, 12)
    write(tmp_path / "in", "a.jsonl", records)
    config = make_config(tmp_path, mode="incremental", incremental={"select": "refresh"})
    run_pipeline(spark, config, STAGES_RUN, run_id="night")
    store = Store(spark, config.output)
    size = len(chosen(store))
    for text in ("once", "twice"):
        anew = [record(r["id"], [7], 1.0, f"{text} {k}") for k, r in enumerate(records)]
        write(tmp_path / "in", "a.jsonl", anew)
        done = run_pipeline(spark, config, STAGES_RUN, run_id="again")  # a scheduler's name, used twice
        moved = done["counts"]["select"]["moved"]
        assert (moved["before"], moved["kept"], moved["entered"], moved["left"]) == (size, 0, size, size)
        assert (moved["left_because"], moved["jaccard"]) == ({"changed": size}, 0.0)
    told = [(r["id"], r["change"]) for r in store.read(SELECTION_CHANGES).where("run_id = 'again'").collect()]
    assert len(told) == 4 * size
    assert {i for i, change in told if change == "entered"} >= set(chosen(store))


def test_what_is_read_is_none_of_the_tables_that_are_written(spark, tmp_path):
    write(tmp_path / "in", "a.jsonl", some_records(0, 5))
    config = make_config(tmp_path)
    own = f"{config.output.path}/tables/pool"
    wrong = config.model_copy(update={"pool": config.pool.model_copy(update={"path": own})})
    with pytest.raises(InputError, match=r"is what a run with output\.path = .* writes over"):
        run_pipeline(spark, wrong, STAGES_RUN)
