"""`select` on pandas and Arrow: the dense greedy's ids, without Spark; what a Selection shows of itself."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from dataclasses import replace
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mig_spark import select
from mig_spark.config import IncrementalConfig, QuotaLimit, SelectConfig
from mig_spark.errors import ConfigError, ContractError, InputError, MigError
from mig_spark.selection.extend import grown
from mig_spark.selection.settings import near_groups

from oracles.dense import Row, dense_greedy, dense_propagation
from oracles.pools import pools


def name(k):
    return f"label {k:02d}"


def table_of(rows, **more):
    columns = {
        "id": pa.array([r.key for r in rows], pa.string()),
        "labels": pa.array([[name(k) for k in r.labels] for r in rows], pa.list_(pa.string())),
        "score": pa.array([r.score for r in rows], pa.float64()),
        "origin": pa.array([f"k{r.quota}" for r in rows], pa.string()),
        "tokens": pa.array([r.cost for r in rows], pa.float64()),
    }
    return pa.table({**columns, **more})


def medium(n=200, labels=30, seed=3):
    rng = random.Random(seed)
    return [
        Row(f"r{k:04d}", tuple(rng.sample(range(labels), rng.randint(0, 5))), round(rng.uniform(0, 9), 1),
            rng.choice([0, 0, 1, 2]), rng.choice([1.0, 2.0, 5.0]))
        for k in range(n)
    ]  # fmt: skip


EDGES = [(0, 1, 0.95), (1, 2, 0.5), (5, 9, 0.99), (10, 11, 0.9)]
TRIPLES = [(name(i), name(j), w) for i, j, w in EDGES]


@settings(max_examples=20)
@given(
    pool=pools(),
    budget=st.integers(0, 45),
    gain=st.sampled_from(["gradient", "exact"]),
    engine=st.sampled_from(["auto", "rounds", "local"]),
    block_rows=st.integers(1, 15),
    seed=st.integers(0, 9),
)
def test_a_pool_in_memory_gives_the_dense_greedys_ids(pool, budget, gain, engine, block_rows, seed):
    n, rows, edges = pool
    # the graph is over the labels in use: an edge to another one takes nothing away from them
    used = {label for row in rows for label in row.labels}
    known = [edge for edge in edges if used.issuperset(edge[:2])]
    want, _ = dense_greedy(rows, dense_propagation(n, known), budget, gain=gain)
    shuffled = list(rows)
    random.Random(seed).shuffle(shuffled)
    triples = [(name(i), name(j), w) for i, j, w in edges]
    got = select(table_of(shuffled), budget, edges=triples, gain=gain, engine=engine, block_rows=block_rows,
                 candidates=5, max_rounds=1000)  # fmt: skip
    assert got.ids == want


def frames():
    table = table_of(medium())
    long = pa.schema([("id", pa.large_string()), ("labels", pa.large_list(pa.large_string())), ("score", pa.float32())])
    return {
        "table": table,
        "pandas": table.to_pandas(),
        "batch": table.combine_chunks().to_batches()[0],
        "stream": pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=7)),
        "long types": table.select(["id", "labels", "score"]).cast(long),
    }


@pytest.mark.parametrize("kind", frames())
def test_every_kind_of_frame_gives_the_same_ids(kind):
    frame = frames()[kind]
    # float32 rounds the scores, so that this one has its own reference
    rows = [r if kind != "long types" else Row(r.key, r.labels, float(pa.scalar(r.score, pa.float32()).as_py()))
            for r in medium()]  # fmt: skip
    want, _ = dense_greedy(rows, dense_propagation(30, EDGES), 40)
    assert select(frame, 40, edges=TRIPLES).ids == want


def test_it_starts_no_spark():
    code = (
        "import sys, pyarrow as pa; from mig_spark import select\n"
        "t = pa.table({'key': [10, 9, -3], 'labels': [['a'], ['a'], ['b']], 'score': [1, 1, 2]})\n"
        "assert select(t.to_pandas(), 3, id='key').ids == [-3, 9, 10]\n"
        "assert 'pyspark' not in sys.modules and 'py4j' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_given_include_exclude_as_ids_tables_and_files(tmp_path):
    rows, P = medium(), dense_propagation(30, EDGES)
    taken = ["r0003", "r0100", "r0150"]
    (tmp_path / "ids.jsonl").write_text("\n".join(json.dumps({"id": i}) for i in taken))
    (tmp_path / "ids.txt").write_text("\n".join(taken))
    pq.write_table(pa.table({"id": taken}), tmp_path / "ids.parquet")
    forms = [
        taken,
        pa.array(taken),
        pd.Series(taken),
        pd.Series(taken).to_numpy(),
        pd.Index(taken),
        dict.fromkeys(taken).keys(),
    ]
    forms += [pd.DataFrame({"id": taken}), pa.table({"id": taken})]
    forms += [str(tmp_path / f"ids.{ending}") for ending in ("jsonl", "txt", "parquet")]
    by_key = {r.key: r for r in rows}
    rest = [r for r in rows if r.key not in taken]
    first = [by_key[k] for k in taken]
    given_ids, _ = dense_greedy(rest, P, 30, given=first)
    included, _ = dense_greedy(rest, P, 27, given=first)
    excluded, _ = dense_greedy(rest, P, 30)
    pool = table_of(rows)
    for ids in forms:
        assert select(pool, 30, edges=TRIPLES, given=ids).ids == given_ids
        assert select(pool, 30, edges=TRIPLES, include=ids).ids == [*taken, *included]
        assert select(pool, 30, edges=TRIPLES, exclude=ids).ids == excluded
    with pytest.raises(InputError, match="1 of 2 ids in include are not among the pool's usable rows"):
        select(pool, 30, include=["r0001", "nobody"])


def test_ids_of_exclude_and_given_that_are_not_in_the_pool_are_told():
    pool = table_of(medium(20))
    assert select(pool, 3, exclude=["r0001"], given=["r0002"]).notes == []
    found = select(pool, 3, exclude=iter(["r0001", "z", "nobody", "z"]))
    assert found.notes == ["2 of 3 ids in exclude are not among the rows to choose from ('nobody', ...)"]
    assert found.ids == select(pool, 3, exclude=["r0001"]).ids
    numbered = table_of(medium(20), id=pa.array(range(20), pa.int64()))
    assert select(numbered, 3, exclude=[77]).notes == [
        "1 of 1 ids in exclude are not among the rows to choose from (77)"
    ]
    (note,) = select(pool, 3, given=["r0001", "nobody"]).notes
    assert note.startswith("1 of 2 ids in given are not among the pool's usable rows ('nobody': not in the pool)")


def test_what_a_given_row_knows_counts_where_the_row_is_excluded_too():
    pool = table_of(medium(20))
    both = select(pool, 5, given=["r0001", "r0002"], exclude=["r0001"])
    alone = select(pool, 5, given=["r0001", "r0002"])
    assert (both.ids, both.objective, both.notes) == (alone.ids, alone.objective, [])


@pytest.mark.skipif(not hasattr(pa, "uuid"), reason="this pyarrow has no type for UUIDs")
def test_uuids_as_ids_and_labels_as_categories():
    rows = medium(20)
    uuids = [UUID(int=k) for k in range(20)]
    want = select(table_of(rows, id=pa.array([str(u) for u in uuids])), 5)
    stored = pa.array([u.bytes for u in uuids], pa.binary(16))
    pool = table_of(rows, id=pa.ExtensionArray.from_storage(pa.uuid(), stored))
    labels = pool["labels"].combine_chunks()
    categories = pa.ListArray.from_arrays(labels.offsets, labels.values.dictionary_encode())
    pool = pool.set_column(pool.schema.get_field_index("labels"), "labels", categories)
    assert select(pool, 5) == want
    assert not set(select(pool, 5, exclude=[UUID(want.ids[0])]).ids) & {want.ids[0]}


def test_quotas_and_cost_in_memory():
    rows, P = medium(), dense_propagation(30, [])
    quotas = {"column": "origin", "limits": {"k1": {"min": 9}, "k2": {"max": 3}}, "each": {"max": 15}}
    want, _ = dense_greedy(rows, P, 24, lower={1: 9}, upper={0: 15, 2: 3})
    assert select(table_of(rows), 24, quotas=quotas).ids == want
    want, _ = dense_greedy(rows, P, 10**6, max_cost=61.0)
    assert select(table_of(rows), None, cost={"column": "tokens", "budget": 61.0}).ids == want


def test_quotas_as_shares_and_in_units_of_the_cost():
    rows, P = medium(), dense_propagation(30, [])
    # of 25 rows 0.3 are 7.5: 7 or 8; at least 0.1 are 3, at most 0.5 are 12
    shares = {"k0": {"share": 0.3}, "k1": {"min_share": 0.1, "max_share": 0.5}, "k2": {"max_share": 0.99}}
    want, _ = dense_greedy(rows, P, 25, lower={0: 7, 1: 3}, upper={0: 8, 1: 12, 2: 24})
    assert select(table_of(rows), 25, quotas={"column": "origin", "limits": shares}).ids == want

    cost = {"column": "tokens", "budget": 61.0}
    quotas = {"column": "origin", "unit": "cost", "limits": {"k1": {"max": 9}, "k2": {"max_share": 0.1}}}
    want, _ = dense_greedy(rows, P, 10**6, max_cost=61.0, class_cost={1: 9.0, 2: 6.1})
    assert want != dense_greedy(rows, P, 10**6, max_cost=61.0)[0]
    assert select(table_of(rows), None, cost=cost, quotas=quotas).ids == want
    # rows that come first are paid out of their class
    classes = {r.key: r.quota for r in rows}
    first = next(i for i in want if classes[i] == 1)
    got = select(table_of(rows), None, cost=cost, quotas=quotas, include=[first]).ids
    paid = {k: sum(r.cost for r in rows if r.quota == k and r.key in got) for k in range(3)}
    assert got[0] == first
    assert paid[1] <= 9.0
    assert paid[2] <= 6.1
    dear = [r.key for r in rows if r.quota == 1]
    with pytest.raises(InputError, match=r"rows to take first .* do not fit the budget, the cost or the quotas"):
        select(table_of(rows), None, cost=cost, quotas=quotas, include=dear)
    more = {**quotas, "first_may_exceed": True}
    few = sorted(dear)[:8]
    assert set(few) <= set(select(table_of(rows), None, cost=cost, quotas=more, include=few).ids)
    with pytest.raises(InputError, match=r"'k0' has \d+ usable rows and a minimum of"):
        select(table_of(rows), 550, quotas={"column": "origin", "each": {"share": 0.9}})


def test_rows_without_a_value_of_the_quota_column():
    """Groups of one to five rows, a third of the rows in none: with two kinds of nothing, and a limit that most
    groups cannot reach."""
    rows, P = medium(), dense_propagation(30, EDGES)
    group = [None if k % 3 == 0 else f"g{k * k % 97:02d}" for k in range(len(rows))]
    table = table_of(rows).append_column("near", pa.array(group))
    for most in (1, 3):
        numbers = {g: k for k, g in enumerate(sorted({g for g in group if g}), 1)}
        numbered = [replace(r, quota=numbers.get(g, 0)) for r, g in zip(rows, group, strict=True)]
        want, _ = dense_greedy(numbered, P, 60, upper=dict.fromkeys(numbers.values(), most))
        quotas = {"column": "near", "each": {"max": most}, "missing": "unlimited"}
        for pool in (table, table.set_column(table.num_columns - 1, "near", pa.array([g or "" for g in group]))):
            assert select(pool, 60, edges=TRIPLES, quotas=quotas).ids == want
    first = [r.key for r, g in zip(rows, group, strict=True) if g == "g01"][:3]
    assert len(first) == 3
    said = (
        r"the 3 rows to take first \(select.include\) do not fit the quotas "
        r"\('g01' would have 3 rows and may have 2\): raise the limits, or shorten the list, "
        r"or set select.quotas.first_may_exceed: true$"
    )
    with pytest.raises(InputError, match=said):
        select(table, 60, quotas={**quotas, "each": {"max": 2}}, include=first)
    got = select(table, 60, quotas={**quotas, "each": {"max": 2}, "first_may_exceed": True}, include=first)
    assert got.ids[:3] == sorted(first)
    here = dict(zip((r.key for r in rows), group, strict=True))
    assert [i for i in got.ids if here[i] == "g01"] == sorted(first)
    with pytest.raises(InputError, match="x quota value is missing"):
        select(table.filter(pa.array([g is None for g in group])), 9, quotas={"column": "near", "each": {"max": 1}})


def test_edges_and_label_parameters_from_files(tmp_path):
    rows, pool = medium(), table_of(medium())
    (tmp_path / "e.jsonl").write_text("\n".join(json.dumps({"src": a, "dst": b, "weight": w}) for a, b, w in TRIPLES))
    (tmp_path / "p.csv").write_text(f"label,weight\n{name(3)},5\n")
    (tmp_path / "p.json").write_text(json.dumps({name(3): {"weight": 5.0}}))
    weight = [5.0 if k == 3 else 1.0 for k in range(30)]
    want, _ = dense_greedy(rows, dense_propagation(30, EDGES), 20, weight=weight)
    for parameters in ("p.csv", "p.json"):
        got = select(pool, 20, edges=str(tmp_path / "e.jsonl"), label_parameters=str(tmp_path / parameters))
        assert (got.ids, got.notes) == (want, [])
    (tmp_path / "p.json").write_text(json.dumps({name(3): {"weight": 5.0}, "no such": {"weight": 2.0}}))
    got = select(pool, 20, edges=str(tmp_path / "e.jsonl"), label_parameters=str(tmp_path / "p.json"))
    assert (got.ids, got.notes) == (want, ["select.label_parameters: no row carries 1 of the 2 labels ('no such')"])
    want, _ = dense_greedy(rows, dense_propagation(30, [e for e in EDGES if e[2] >= 0.91]), 20)
    assert select(pool, 20, edges=str(tmp_path / "e.jsonl"), threshold=0.91).ids == want


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"normalize": "Sender"},
            ConfigError,
            "normalize = 'Sender': give 'receiver' or 'sender'; did you mean 'sender'",
        ),
        ({"gain": "Exact"}, ConfigError, "gain = 'Exact'"),
        ({"threshold": 2.0}, ConfigError, "threshold = 2.0"),
        ({"quotas": {"colum": "x"}}, ConfigError, "unknown key 'quotas.colum', did you mean 'column'"),
        ({"score": "points"}, ContractError, "no column 'points'"),
        ({"labels": "origin"}, ContractError, "'labels' is string, not lists of text"),
        ({"edges": [("a", "b", -1.0)]}, InputError, "a finite weight >= 0"),
        ({"exclude": [b"r0001"]}, InputError, "exclude: the pool's ids are text, and this list has something else"),
        ({"edges": [("a", "b", None)]}, InputError, "a finite weight >= 0"),
        ({"edges": [("a", "b")]}, InputError, r"edges: \('a', 'b'\) is not \(label, label, weight\)"),
        ({"edges": [("a", "b", "much")]}, InputError, "is not .label, label, weight"),
        ({"edges": pd.DataFrame({"src": ["a"], "dst": ["b"]})}, InputError, "edges: no column 'weight': a table of"),
        ({"edges": pd.DataFrame({"src": ["a"], "dst": ["b"], "weight": [-1.0]})}, InputError, "a finite weight >= 0"),
        ({"exclude": pd.DataFrame({"ID": ["a"]})}, ContractError, "a column 'id'; this one has ID"),
        ({"edges": "no-such-file.jsonl"}, InputError, "edges = no-such-file.jsonl: No such file"),
        ({"include": 7}, MigError, "include: int is no list of ids"),
        ({"exclude": b"r0001"}, MigError, "exclude: bytes is no list of ids"),
        ({"exclude": [["r0001"]]}, InputError, "has something else .*is list"),
        ({"exclude": [1.0]}, InputError, "has something else .1.0 is a float"),
        ({"exclude": ["\ud800"]}, InputError, "the pool's ids are text"),
        ({"exclude": "no-such-file.txt"}, InputError, "exclude = no-such-file.txt: No such file.*go into a list"),
        ({"id": "origin", "quotas": {"column": "id"}}, ConfigError, "rename the column"),
        (
            {"include": ["r0001"], "exclude": ["r0001"]},
            InputError,
            "'r0001': in exclude or given too.*cannot be included",
        ),
        ({"include": ["r0001", "no"], "given": ["r0001"]}, InputError, "'no': not in the pool, 'r0001': in exclude or"),
        (
            {"quotas": {"column": "nope"}},
            ContractError,
            r"no column 'nope', which select.quotas names \(it has id, labels, score",
        ),
    ],
)
def test_what_cannot_be_is_told(options, error, says):
    with pytest.raises(error, match=says):
        select(table_of(medium(20)), 3, **options)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([1, 2, 2**70], "cannot be read as an Arrow table"),
        (pa.array([1, 2, 2**63], pa.uint64()), "'id' cannot be converted"),
        (["a", "b", "\ud800"], "cannot be read as an Arrow table"),
        ([7, 8, 7], "id 7 is there more than once"),
    ],
)
def test_ids_that_cannot_be_are_told(ids, says):
    frame = {"id": ids, "labels": [["x"]] * 3, "score": [1.0] * 3}
    for engine in ("local", "rounds"):
        with pytest.raises(MigError, match=says):
            select(pa.table(frame) if isinstance(ids, pa.Array) else pd.DataFrame(frame), 2, engine=engine)


def test_ids_of_a_list_are_never_rounded_and_columns_are_there_once():
    pool = pa.table({"id": [1, 2, 3], "labels": [["x"]] * 3, "score": [1.0] * 3})
    assert select(pool, 2, exclude=pd.Series([1.0])).ids == [2, 3]
    with pytest.raises(InputError, match=r"this list has something else \(1.7 is no integer\)"):
        select(pool, 2, exclude=[1.7])
    with pytest.raises(ContractError, match="more than one column 'score'"):
        select(pool.append_column("score", pool["score"]), 2)


@pytest.mark.parametrize("value", [3.7, True, "x", float("nan"), 2**70, None])
def test_a_list_of_ids_is_never_taken_for_another(value):
    pool = table_of(medium(20), id=pa.array(range(20), pa.int64()))
    if value is None:
        assert select(pool, 3, exclude=[None, 4]) == select(pool, 3, exclude=[4])
    else:
        with pytest.raises(InputError, match=r"exclude: the pool's ids are integers, and this list has something else"):
            select(pool, 3, exclude=[value])


def test_ids_in_every_form(tmp_path):
    rows = medium(30)
    pool, out = table_of(rows), ["r0001", "r0004"]
    want = select(pool, 9, exclude=out)
    assert not set(out) & set(want.ids)
    (tmp_path / "ids.txt").write_text("\ufeffr0001\r\n\r\nr0004\r\n", encoding="utf-8")
    forms = [
        pd.Series([*out, None]), pd.Index(out), pd.DataFrame({"id": pd.Categorical(out)}), set(out), iter(out),
        dict.fromkeys(out).keys(), pa.array(out), pa.chunked_array([out]), tmp_path / "ids.txt",
        str(tmp_path / "ids.txt"),
    ]  # fmt: skip
    for form in forms:
        assert select(pool, 9, exclude=form) == want
    numbered = table_of(rows, id=pa.array(range(30), pa.int64()))
    (tmp_path / "numbers.txt").write_text("1\n\n4\n")
    for form in [pd.Series([1, 4, None]), [1.0, "4"], tmp_path / "numbers.txt"]:
        assert select(numbered, 9, exclude=form) == select(numbered, 9, exclude=[1, 4])
    with gzip.open(tmp_path / "ids.jsonl.gz", "wt") as out_file:
        out_file.write("\n".join(json.dumps({"id": i}) for i in out))
    (tmp_path / "ids.csv").write_text("rank,id\n1,r0001\n2,r0004\n")
    for name in ("ids.jsonl.gz", "ids.csv"):
        assert select(pool, 9, exclude=tmp_path / name) == want
    (tmp_path / "numbers.csv").write_text("id\n1\n4\n")
    assert select(numbered, 9, exclude=tmp_path / "numbers.csv") == select(numbered, 9, exclude=[1, 4])
    (tmp_path / "some.jsonl").write_text('{"id": "r0001"}\n{"name": "r0004"}\n')
    with pytest.raises(InputError, match=r"some.jsonl: row 2 has no id"):
        select(pool, 9, exclude=tmp_path / "some.jsonl")
    (tmp_path / "ids.txt").write_bytes(b"\xe9\n")
    with pytest.raises(InputError, match="it is no UTF-8 text"):
        select(pool, 9, exclude=tmp_path / "ids.txt")


def test_only_the_columns_that_are_needed_are_looked_at():
    pool = table_of(medium(20)).to_pandas()
    want = select(pool, 3)
    pool["messages"] = [[{"role": "user"}], "text", 3, None] * 5
    assert select(pool, 3) == want
    with pytest.raises(InputError, match="cannot be read as an Arrow table"):
        select(pool, 3, labels="messages")
    with pytest.raises(InputError, match="Duplicate column names"):
        select(pd.concat([pool, pool[["id"]]], axis=1), 3)
    with pytest.raises(ContractError, match="more than one column 'id'"):
        select(pa.table([["a"], ["b"], [["x"]], [1.0]], names=["id", "id", "labels", "score"]), 1)


@pytest.mark.parametrize("budget", [30, None])
def test_as_many_rows_are_added_as_the_config_says_with_a_cost_alone_too(budget):
    section = SelectConfig(budget=budget, cost={"column": "tokens", "budget": 1e6})
    assert grown(section, IncrementalConfig(add=5), 10).budget == 15
    assert grown(section, IncrementalConfig(add=5), 10, unchanged=True).budget == 10
    assert grown(section, IncrementalConfig(), 10).budget == budget
    assert grown(section, IncrementalConfig(select="refresh"), 10).budget == budget


def test_what_a_selection_did_not_go_by_is_told(caplog):
    pool = table_of(medium(20), kind=pa.array(["u", "v"] * 10))
    few = select(pool, 15, quotas={"column": "kind", "each": {"max": 3}})
    assert (len(few), few.notes[-1]) == (6, "9 rows of the budget are left over: select.quotas allow no other row")
    # what a run goes by with screen.near_duplicates.max_per_group, which the note has to name
    groups = near_groups(QuotaLimit(max=1)).model_dump()
    near = select(pool.append_column("near_group", pa.array(["g"] * 20)), 15, quotas=groups)
    assert near.notes[-1] == (
        "14 rows of the budget are left over: screen.near_duplicates.max_per_group allows no other row"
    )
    cheap = pool.append_column("cost", pa.array([5.0] * 20))
    none = select(cheap, None, cost={"column": "cost", "budget": 1.0})
    assert (len(none), none.notes[-1]) == (0, "no row is taken: select.cost allows none")
    assert select(pool, 15).notes == []
    assert not [r for r in caplog.records if r.levelname == "WARNING"]
    select(pool, 3, edges=[("X", "Y", 0.5)])
    assert "none of 1 joins two different labels that rows carry" in caplog.text
    select(pool, 3, quotas={"column": "kind", "limits": {"U": {"max": 2}}})
    assert "no usable row has the value 'U', so its limit is of no row; there are 'u', 'v'" in caplog.text
    every = select(pool, 20, upper_bound=True)
    assert every.certificate.upper_bound == every.objective, "there is one selection of all rows"
    assert repr(select(pool, 1)).startswith("Selection of 1 row\n")
    caplog.clear()
    select(pool, 3, phi={"kind": "exp"}, label_parameters=None)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("phi", "says"),
    [
        ({"alpha": 0.01}, "alpha is of kind: exp, and kind is pow"),
        ({"kind": "exp", "b": 0.3}, "b is of kind: pow, and kind is exp"),
        ({"kind": "exp", "a": 1}, "a is of kind: pow"),
    ],
)
def test_a_parameter_of_the_other_phi_is_refused(phi, says):
    with pytest.raises(ConfigError, match=says):
        select(table_of(medium(9)), 3, phi=phi)


def test_parameters_of_labels_that_phi_does_not_have_are_told(tmp_path, caplog):
    (tmp_path / "p.json").write_text(json.dumps({name(3): {"alpha": 5.0, "weight": 2.0}}))
    select(table_of(medium(9)), 3, label_parameters=str(tmp_path / "p.json"))
    assert "1 labels have alpha of their own, which is of select.phi.kind: exp; it is pow: not used" in caplog.text


def test_frames_at_the_edges():
    pool = table_of(medium(4))
    with pytest.raises(InputError, match="the pool has no row that is not in exclude"):
        select(pool, 3, exclude=pool["id"])
    with pytest.raises(ContractError, match=r"no column 'id'; 'labels'; 'score' \(it has none\)"):
        select(pd.DataFrame(), 3)
    with pytest.raises(InputError, match="the pool is empty"):
        select(table_of(medium(2)).to_pandas().head(0), 3)
    with pytest.raises(InputError, match="2 x id is missing"):
        select(table_of(medium(2)).to_pandas().assign(id=None), 3)
    with pytest.raises(ContractError, match="'id' cannot be converted"):
        select(table_of(medium(2), id=pa.array([1, 2**64 - 1], pa.uint64())), 3)
    with pytest.raises(InputError, match="surrogates not allowed"):
        select(table_of(medium(2)).to_pandas().assign(id=["\ud800", "b"]), 3)
    with pytest.raises(ContractError, match="Series is no table"):
        select(pd.Series(["a"]), 3)


def test_one_column_may_have_two_roles():
    pool = table_of(medium(30))
    cost = {"column": "tokens", "budget": 9.0}
    renamed = pool.append_column("same", pool["tokens"]).drop_columns(["score"])
    want = select(renamed, None, score="same", cost=cost)
    assert select(pool.drop_columns(["score"]), None, score="tokens", cost=cost) == want


def test_labels_in_csv_that_look_like_numbers(tmp_path):
    pool = pa.table({"id": ["a", "b"], "labels": [["1"], ["2"]], "score": [1.0, 1.0]})
    (tmp_path / "p.csv").write_text("label,weight\n2,5\n")
    assert select(pool, 1, label_parameters=str(tmp_path / "p.csv")).ids == ["b"]


def test_what_is_unknown_is_no_option():
    with pytest.raises(TypeError, match="exclud"):
        select(table_of(medium(20)), 3, exclud=["r0001"])


def test_unusable_rows_are_counted_and_an_id_twice_is_refused():
    table = pa.table({"id": ["a", "b", None], "labels": [["x"], None, ["x"]], "score": [1.0, 2.0, 3.0]})
    assert select(table, 3).counts["rejected"] == {"id is missing": 1, "no annotation": 1}
    with pytest.raises(InputError, match="no usable row to select from"):
        select(table.slice(1), 3)
    twice = pa.table({"id": ["a", "a"], "labels": [["x"], ["y"]], "score": [1.0, 2.0]})
    for engine in ("local", "rounds"):
        with pytest.raises(InputError, match="id 'a' is there more than once"):
            select(twice, 1, engine=engine)


def test_a_selection_shows_itself_in_a_few_lines():
    rows = [*medium(), Row("<b>&", (0,), 1e90)]
    got, other = select(table_of(rows), 40), select(table_of(rows), 39)
    shown = repr(got)
    assert shown.startswith("Selection of 40 rows\n  ids          <b>&, ")
    assert len(shown.splitlines()) <= 12
    assert len(shown) < 1500
    assert f"{got.objective:,.6g}" in shown
    page = got._repr_html_()
    assert "&lt;b&gt;&amp;" in page
    assert "<b>" not in page
    assert page.count("<tr>") < 25
    assert "and 30 more rows" in page
    assert got == select(table_of(rows), 40)
    assert hash(got) == hash(select(table_of(rows), 40))
    assert got != other
    assert got != "something else"
    assert "Selection of 0 rows" in repr(select(table_of(rows), 0))
    assert select(table_of(rows), 0)._repr_html_()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"edges": [("a", "b", 0.9)], "model": "all-MiniLM-L6-v2"}, "edges and a model"),
        ({"threshold": 0.5}, "no edges that it could cut"),
    ],
)
def test_options_of_the_label_graph_that_would_be_ignored_are_refused(given, words):
    pool = pa.table({"id": ["x"], "labels": [["a"]], "score": [1.0]})
    with pytest.raises(ConfigError, match=words):
        select(pool, 1, **given)
