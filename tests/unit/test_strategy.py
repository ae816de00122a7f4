"""How rows are chosen: the strategy `random`, what every strategy must keep to, and one that a package brings."""

from __future__ import annotations

import json
import random
import re
import sys
from pathlib import Path

import jsonschema
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mig_spark import select
from mig_spark.cli import cli
from mig_spark.config import Config, SelectConfig, build_config
from mig_spark.errors import ConfigError, ContractError, InputError
from mig_spark.kernels.selection.ids import RepeatedIdsError
from mig_spark.kernels.selection.xxhash import xxhash64
from mig_spark.labels.label_graph import LabelGraph
from mig_spark.selection.arrow_rows import ArrowRows
from mig_spark.selection.baselines import random_objective
from mig_spark.selection.strategy import Strategy

LEAST = {"pool": {"path": "x"}, "output": {"path": "y"}}


def pool(n=300, seed=0, integers=False):
    rng = random.Random(seed)
    rows = [
        {"id": k if integers else f"row {k}", "labels": rng.sample("abcdef", rng.randint(0, 3)), "score": rng.random(),
         "origin": rng.choice("xxxyz")}
        for k in range(n)
    ]  # fmt: skip
    rng.shuffle(rows)
    return pa.Table.from_pylist(rows)


def test_the_hash_is_sparks():
    """`select xxhash64(id, 7)` in Spark 4.2."""
    ids = pa.array(["", "a", "row 17", "é" * 40, "0123456789abcdef0123456789abcdefX"])
    assert xxhash64(ids, 7).tolist() == [
        -1372193571060509073, -3997527857389255009, 1818448705606050691, 7976735932422484637, -4172757503260971319,
    ]  # fmt: skip
    assert xxhash64(pa.array([5, -3, 2**40]), 3).tolist() == [
        -7688295199067255577, -4433741669614705311, -7350870501073442322,
    ]  # fmt: skip


def test_random_rows_are_those_of_the_least_hashes_in_whatever_order_they_come():
    table = pool()
    whole = select(table, 300, strategy="random", seed=7)
    ids = table["id"].to_pylist()
    hashes = dict(zip(ids, xxhash64(pa.array(ids), 7).tolist(), strict=True))
    assert whole.ids == sorted(ids, key=hashes.__getitem__)
    assert select(pool().sort_by("id"), 40, strategy="random", seed=7).ids == whole.ids[:40]
    assert select(table.to_pandas(), 40, strategy={"kind": "random"}, seed=7).ids == whole.ids[:40]
    assert select(table, 40, strategy="random", seed=8).ids != whole.ids[:40]
    assert select(table, 9**9, strategy="random", seed=7) == whole
    numbers = pool(integers=True)
    hashes = dict(zip(numbers["id"].to_pylist(), xxhash64(numbers["id"].combine_chunks(), 0).tolist(), strict=True))
    assert select(numbers, 9, strategy="random").ids == sorted(hashes, key=hashes.__getitem__)[:9]


def test_the_random_baseline_of_a_certificate_starts_from_the_rows_that_are_given():
    """It is what `mig` would have if it took the same rows: drawn of those that may be taken, after the given ones."""
    table, config = pool(), SelectConfig(strategy="mig", budget=20)
    ids = table["id"].to_pylist()
    given_ids = sorted(ids[:100])
    whole = ArrowRows.of(table, config).usable()
    known, _ = whole.find(given_ids, "given")
    rows = whole.without(given_ids, "given")
    graph = LabelGraph.without_edges(list("abcdef"))
    curve = random_objective(rows, graph, config, many=len(rows.table), budget=20, seed=3, given=known)
    drawn = select(table, 20, strategy="random", seed=3, given=given_ids).ids
    # every other row is out of the way, so mig takes these
    others = [name for name in ids if name not in {*drawn, *given_ids}]
    assert curve[-1]["rank"] == 20
    assert curve[-1]["objective"] == pytest.approx(select(table, 20, given=given_ids, exclude=others).objective)


def test_a_selection_without_gains_has_none_and_says_who_chose():
    got = select(pool(), 10, strategy="random")
    assert (got.strategy, got.counts["rows"]) == ("random", 300)
    assert (got.objective, got.certificate, got.graph) == (None, None, None)
    table = got.to_arrow()
    assert table.column_names == ["rank", "id", "gain", "objective", "labels"]
    assert table["gain"].null_count == table["objective"].null_count == 10
    labels = {row["id"]: row["labels"] for row in pool().to_pylist()}
    assert table["labels"].to_pylist() == [labels[i] for i in got.ids]
    assert "random" in repr(got)
    assert "objective" not in repr(got)
    assert "<td>random</td>" in got._repr_html_()


def test_random_keeps_to_include_exclude_and_given():
    table = pool()
    first, others = ["row 5", "row 9"], select(table, 300, strategy="random").ids
    got = select(table, 20, strategy="random", include=first, exclude=others[:30], given=others[30:40])
    assert got.ids[:2] == ["row 5", "row 9"]
    assert got.ids[2:] == [i for i in others[40:] if i not in first][:18]


def walk(rows, budget, limits, each):
    """The plainest one: a row at a time in the order of the hash, unless what is left is owed to others."""
    lacking = {kind: limit.get("min", 0) for kind, limit in limits.items()}
    taken: dict[str, int] = {}
    ids = []
    for name, kind in rows:
        limit = limits.get(kind, each)
        if len(ids) == budget or taken.get(kind, 0) >= limit.get("max", budget):
            continue
        if lacking.get(kind, 0) == 0 and budget - len(ids) <= sum(lacking.values()):
            continue
        ids.append(name)
        taken[kind] = taken.get(kind, 0) + 1
        lacking[kind] = max(0, lacking.get(kind, 0) - 1)
    return ids


@given(
    budget=st.integers(8, 60),
    low=st.integers(0, 4),
    high=st.integers(4, 30),
    each=st.sampled_from([{}, {"max": 3}, {"max": 0}]),
    seed=st.integers(0, 2**40),
)
def test_quotas_are_those_of_a_walk_over_the_rows(budget, low, high, each, seed):
    table = pool()
    limits = {"y": {"min": low, "max": high}, "z": {"min": 4}}
    quotas = {"column": "origin", "limits": limits, **({"each": each} if each else {})}
    ids, kinds = table["id"].to_pylist(), table["origin"].to_pylist()
    hashes = xxhash64(pa.array(ids), seed).tolist()
    rows = [(name, kind) for _, name, kind in sorted(zip(hashes, ids, kinds, strict=True))]
    got = select(table, budget, strategy="random", seed=seed, quotas=quotas)
    assert got.ids == walk(rows, budget, limits, each)
    free = {**limits, "x": {}}
    missing = pa.array([None if kind == "x" else kind for kind in kinds])
    table = table.set_column(table.schema.get_field_index("origin"), "origin", missing)
    got = select(table, budget, strategy="random", seed=seed, quotas={**quotas, "missing": "unlimited"})
    assert got.ids == walk(rows, budget, free, each)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cost": {"column": "score", "budget": 3}}, "strategy: random does not go by cost"),
        ({"gain": "exact", "norm": True}, "does not go by gain, norm"),
        ({"edges": [("a", "b", 1.0)]}, "edges, and strategy random does not read the label graph"),
        ({"model": "some-model"}, "a model, and strategy random does not read"),
        ({"strategy": "rundom"}, "no strategy has this name: known are mig, random, .*; did you mean 'random'"),
        ({"strategy": {"kind": "random", "depth": 2}}, "unknown key 'strategy.depth'"),
    ],
)
def test_what_a_strategy_cannot_keep_to_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        select(pool(), 5, **{"strategy": "random", **options})


def test_unusable_rows_are_counted_and_none_is_taken():
    table = pd.DataFrame({"id": ["a", "b", "c"], "labels": [["x"], None, ["y"]], "score": [1.0, 1.0, -1.0]})
    got = select(table, 3, strategy="random")
    assert got.ids == ["a"]
    assert got.counts == {"rows": 1, "rejected": {"no annotation": 1, "score is negative": 1}}
    with pytest.raises(InputError, match="no usable row to select from"):
        select(table.iloc[1:], 3, strategy="random")


def test_the_default_strategy_by_its_name_is_the_same_config():
    plain = build_config(LEAST)
    assert plain.hash() == build_config({**LEAST, "select": {"strategy": "mig"}}).hash()
    assert plain.hash() != build_config({**LEAST, "select": {"strategy": "random"}}).hash()
    assert '"strategy"' not in str(plain.to_dict()["pool"])


TOY = '''
from typing import ClassVar, Literal

from pydantic import Field

import pyarrow as pa

from mig_spark.selection.strategy import Ranked, Strategy


class Alphabetical(Strategy):
    """The first rows by id."""

    kind: Literal["alphabetical"] = "alphabetical"
    backwards: bool = Field(False, description="the last ones")
    columns: ClassVar = ("origin",)

    def select(self, rows, budget, context):
        ids = sorted(rows.table["id"].to_pylist(), reverse=self.backwards)
        return context.after_first(FAULT)
'''


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Puts a package with the strategy `alphabetical` on the path, as an installer would."""

    def put(fault="ids[:budget]"):
        install(tmp_path, monkeypatch, TOY.replace("FAULT", fault), "alphabetical = toy_strategy:Alphabetical")

    yield put
    sys.modules.pop("toy_strategy", None)


def install(folder, monkeypatch, code, point):
    module = point.partition("= ")[2].partition(":")[0]
    info = folder / "site" / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "site" / f"{module}.py").write_text(code)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mig_spark.strategies]\n{point}\n")
    monkeypatch.syspath_prepend(str(folder / "site"))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The strategy of docs/strategies.md, installed as the page says."""
    text = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text(encoding="utf-8")
    code, point = (re.findall(rf"```{name}\n(.*?)```", text, re.DOTALL) for name in ("python", "toml"))
    install(tmp_path, monkeypatch, code[0], point[0].strip().splitlines()[-1].replace('"', ""))
    yield
    sys.modules.pop("my_strategy", None)


@pytest.mark.usefixtures("page")
def test_the_strategy_of_the_docs_is_in_the_help_the_schema_and_a_run():
    best = sorted(pool().to_pylist(), key=lambda row: (-row["score"], row["id"]))
    assert select(pool(), 9, strategy="best_score").ids == [row["id"] for row in best[:9]]
    above = {"kind": "best_score", "above": best[4]["score"]}
    assert select(pool(), 9, strategy=above, include=["row 1"]).ids == ["row 1", *(r["id"] for r in best[:4])]
    told = CliRunner().invoke(cli, ["select", "--help"]).output
    assert "best_score  The rows with the highest scores; ties go by id" in told
    assert "mig         Exact greedy maximisation" in told
    schema = json.loads(CliRunner().invoke(cli, ["config", "--schema"]).output)
    jsonschema.validate({**LEAST, "select": {"strategy": above}}, schema)


def test_a_packages_strategy_is_one_file_found_in_the_schema_and_in_a_run(toy):
    toy()
    assert select(pool(), 3, strategy="alphabetical").ids == ["row 0", "row 1", "row 10"]
    backwards = select(pool(), 3, strategy={"kind": "alphabetical", "backwards": True}, include=["row 50"])
    assert backwards.ids == ["row 50", "row 99", "row 98"]
    assert backwards.strategy == "alphabetical"
    with pytest.raises(ContractError, match="'origin'"):
        select(pool().drop(["origin"]), 3, strategy="alphabetical")
    schema = Config.model_json_schema(by_alias=True)
    assert schema["$defs"]["Alphabetical"]["properties"]["backwards"]["description"] == "the last ones"
    jsonschema.validate({**LEAST, "select": {"strategy": {"kind": "alphabetical", "backwards": True}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**LEAST, "select": {"strategy": {"kind": "alphabetical", "back": True}}}, schema)
    with pytest.raises(ConfigError, match="alphabetical does not go by quotas"):
        build_config({**LEAST, "select": {"strategy": "alphabetical", "quotas": {}}})


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("ids", r"it took 299 rows, the budget is 3"),
        ("[ids[0], ids[0]]", "it took a row more than once .'row 0'"),
        ("['nobody', ids[0]]", "1 of its rows are not among those that may be taken"),
        ("['row 50']", "1 of its rows are not among those that may be taken"),
    ],
)
def test_a_strategy_that_breaks_the_rules_is_named(toy, fault, words):
    toy(fault)
    with pytest.raises(ContractError, match=f"strategy alphabetical is at fault: {words}"):
        select(pool(), 3, strategy="alphabetical", exclude=["row 50"])


def test_rows_of_a_strategy_are_checked_whatever_labels_it_gives(toy):
    toy("['nobody']) if not ids else Ranked(['nobody'], labels=pa.array([['a']])")
    with pytest.raises(ContractError, match="1 of its rows are not among those that may be taken"):
        select(pool(), 3, strategy="alphabetical")


def test_a_cost_is_checked_and_names_of_our_own_columns_are_refused(tmp_path, monkeypatch):
    greedy = TOY.replace("FAULT", "ids[:3]").replace(
        "backwards: bool", "goes_by: ClassVar = frozenset({'cost'})\n    backwards: bool"
    )
    install(tmp_path, monkeypatch, greedy, "alphabetical = toy_strategy:Alphabetical")
    table = pool().append_column("price", pa.array([2.0] * len(pool())))
    cost = {"column": "price", "budget": 5}
    with pytest.raises(ContractError, match="its rows cost 6, and 5 may be spent"):
        select(table, None, strategy="alphabetical", cost=cost)
    sys.modules.pop("toy_strategy", None)
    (tmp_path / "site" / "toy_strategy.py").write_text(greedy.replace('("origin",)', '("cost",)'))
    with pytest.raises(ConfigError, match="needs the column 'cost', which is the name"):
        select(table, 3, strategy="alphabetical")
    sys.modules.pop("toy_strategy", None)


@pytest.mark.parametrize("seed", range(6))
def test_an_id_twice_is_the_pools_fault_and_not_the_strategys(seed):
    twice = pd.DataFrame({"id": ["x", "x", "y", "z"], "labels": [["a"]] * 4, "score": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(RepeatedIdsError):
        select(twice, 4, strategy="random", seed=seed)


def test_a_strategy_of_a_notebook_needs_no_package():
    class First(Strategy):
        """The first row by id."""

        kind: str = "first"

        def select(self, rows, budget, context):
            return context.after_first(sorted(rows.table["id"].to_pylist())[:budget])

    assert select(pool(), 1, strategy=First()).ids == ["row 0"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": 3}, "mig does not go by seed"),
        ({"epsilon": 0.3}, "epsilon is of mode: threshold"),
        ({"prop_weight": 2.0}, "no edges that it could weigh"),
        ({"normalize": "sender"}, "no edges that it could weigh"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        select(pool(), 3, **options)
