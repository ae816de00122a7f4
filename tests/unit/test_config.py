"""The config is refused when it is built, with words that help."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.config import Config, build_config, load_config, run
from mig_spark.config.describe import example_yaml, pages, sections, tells_a_kind
from mig_spark.config.describe_tables import tables_page
from mig_spark.config.select import QuotaLimit
from mig_spark.contracts import SCRATCH, TABLES
from mig_spark.errors import ConfigError

LEAST = {"pool": {"path": "pool.jsonl"}, "output": {"path": "out"}}


def example() -> str:
    return example_yaml()


def test_rows_to_add_are_of_a_selection_that_is_extended():
    plain = {"pool": {"path": "x"}, "output": {"path": "y"}}
    with pytest.raises(ConfigError, match="add has no effect with select: refresh"):
        build_config({**plain, "incremental": {"select": "refresh", "add": 5}})


def test_the_example_is_a_config_of_the_defaults():
    plain = yaml.safe_load(example())
    config = build_config(plain)
    least = build_config({"pool": {"path": plain["pool"]["path"]}, "output": {"path": plain["output"]["path"]}})
    assert config == least


def test_the_example_names_every_key():
    plain = build_config(LEAST).to_dict()
    plain["pool"]["path"], plain["output"]["path"] = "data/pool.jsonl", "mig-out"
    assert yaml.safe_load(example()) == plain
    assert max(map(len, example().splitlines())) <= 120


def test_the_example_says_what_optional_sections_and_other_kinds_are():
    text = example()
    assert "    # column: source" in text
    for kind in ("column", "distilled", "instag", "endpoint", "deita", "ifd", "reward", "combine"):
        assert f"    #   {kind}: " in text


def describes_all(model):
    """A section is described by its own docstring, a `kind` by the member that it names."""
    fields = [f for f in model.model_fields.values() if not tells_a_kind(f)]
    return all(f.description or "Config" in str(f.annotation) for f in fields) and bool(model.__doc__)


@pytest.mark.parametrize("model", list(sections(Config)), ids=lambda model: model.__name__)
def test_every_field_says_what_it_is(model):
    missing = [name for name, f in model.model_fields.items() if not f.description]
    assert describes_all(model), missing


def test_the_pages_are_what_make_docs_writes():
    docs = Path(__file__).parents[2] / "docs"
    made = pages(docs)
    assert "<!-- written by make docs: annotate.tagger -->" in made["annotation.md"]
    stale = [name for name, text in made.items() if not (docs / name).is_file() or (docs / name).read_text() != text]
    assert not stale, "run `make docs` (python -m mig_spark.config.describe docs) and commit the pages"


def test_the_page_of_the_tables_has_every_column_and_check():
    text = tables_page()
    for table in (*TABLES.values(), *SCRATCH):
        part = text.split(f"# `{table.name}`\n", 1)[1].split("\n#", 1)[0]
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| `")]
        columns = [(c.name, c.type, "yes" if c.nullable else "no") for c in table.columns]
        assert [(a.strip("`"), b.strip("`"), null) for a, b, null, _ in (r for r in rows if len(r) == 4)] == columns
        assert {r[0].strip("`"): r[1].strip("`") for r in rows if len(r) == 2} == table.checks


@pytest.mark.parametrize("section", [v for v in vars(run).values() if getattr(v, "__module__", "") == run.__name__])
def test_every_key_of_a_run_is_described(section):
    for name, field in section.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


def test_the_schema_accepts_the_example_and_refuses_a_typo():
    schema = Config.model_json_schema(by_alias=True)
    plain = yaml.safe_load(example())
    jsonschema.validate(plain, schema)
    plain["select"]["bugdet"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(plain, schema)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pool": {"path": "x", "fromat": "json"}}, "unknown key 'pool.fromat', did you mean 'format'?"),
        ({"budget": 5}, "unknown key 'budget', did you mean 'select.budget'?"),
        (
            {"screen": {"near_duplicates": {"enabled": True}}},
            "unknown key 'screen.near_duplicates.enabled': screen.near_duplicates has engine, max_per_group, ngram, "
            "threshold (",
        ),
        ({"select": {"budget": "many"}}, "select.budget = 'many'"),
        ({"select": {"budget": -1}}, "select.budget = -1"),
        ({"select": {"phi": {"b": 1.5}}}, "select.phi.b = 1.5"),
        ({"select": {"mode": "threshold", "epsilon": 1 - 2**-53}}, "select.epsilon = 0.9999999999999999"),
        ({"select": {"mode": "stochastic"}}, "mode: stochastic was taken out"),
        ({"select": {"phi": {"a": 0}}}, "select.phi.a = 0"),
        ({"annotate": {"tagger": {"kind": "embeding"}}}, "embeding"),
        ({"output": {}}, "give output.path"),
        ({"output": {"path": 3}}, "output.path = 3"),
        ({"output": {"path": "out", "catalog": "main"}}, "give output.database too, or leave output.catalog out"),
        ({"lock": {"lease_minutes": float("inf")}}, "lock.lease_minutes = inf: give a finite number"),
        ({"lock": {"wait_minutes": float("inf")}}, "lock.wait_minutes = inf: give a finite number"),
        ({"lock": {"lease_minutes": 0.01}}, "lock.lease_minutes = 0.01: give at least 0.2"),
        ({"tracking": {"wait_seconds": float("inf")}}, "tracking.wait_seconds = inf: give a finite number"),
        (
            {"select": {"cost": {"column": "tokens", "budget": float("inf")}}},
            "select.cost.budget = inf: give a finite number",
        ),
        ({"annotate": {"score": {"missing": float("inf")}}}, "annotate.score.missing = inf: give a finite number"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_what_cannot_be_is_named(change, words):
    with pytest.raises(ConfigError) as caught:
        build_config({**LEAST, **change})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_mode_that_was_called_exact_is_greedy():
    assert build_config({**LEAST, "select": {"mode": "exact"}}).select.mode == "greedy"


def test_both_missing_sections_are_named_at_once():
    with pytest.raises(ConfigError, match="'pool' is missing; 'output' is missing"):
        build_config({})


def test_overrides_are_yaml_values(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump(LEAST))
    sets = [
        "select.budget=50000",
        "select.phi.a=1e-5",
        "graph.normalize=sender",
        "pool.path=[a, b]",
        "select.norm=true",
    ]
    config = load_config(file, sets)
    assert config.select.budget == 50000
    assert config.select.phi.a == 1e-5
    assert config.graph.normalize == "sender"
    assert config.pool.path == ["a", "b"]
    assert config.select.norm is True


def test_an_override_fills_an_empty_section(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("pool: {path: x}\noutput: {path: y}\nselect:\nscreen: {near_duplicates: null}\n")
    config = load_config(file, ["select.budget=5", "screen.near_duplicates.threshold=0.7"])
    assert (config.select.budget, config.screen.near_duplicates.threshold) == (5, 0.7)


@pytest.mark.parametrize("text", ["select.budget", "=3", "select.budget.x=3", "select.budget=[1"])
def test_an_override_that_cannot_be_is_told(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({**LEAST, "select": {"budget": 3}}))
    with pytest.raises(ConfigError, match="--set"):
        load_config(file, [text])


def test_a_missing_or_broken_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match="no config file at"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="holds a list"):
        load_config(tmp_path / "list.yaml")


def test_the_hash_covers_results_and_nothing_else():
    base = build_config(LEAST)
    assert base.hash() == build_config({**LEAST, "spark": {"driver_memory": "9g"}}).hash()
    assert base.hash() == build_config({**LEAST, "output": {"path": "elsewhere"}}).hash()
    assert base.hash() == build_config({**LEAST, "tracking": {"mlflow": "env"}}).hash()
    assert base.hash() != build_config({**LEAST, "select": {"budget": 7}}).hash()


def test_the_threshold_follows_the_model():
    assert build_config(LEAST).graph.resolved_threshold() == 0.75
    other = build_config({**LEAST, "graph": {"embedding_model": "intfloat/e5-mistral-7b-instruct"}})
    assert other.graph.resolved_threshold() == 0.9
    assert build_config({**LEAST, "graph": {"threshold": 0.8}}).graph.resolved_threshold() == 0.8
    own = {"edges_path": "e.jsonl"}
    assert build_config({**LEAST, "graph": own}).graph.resolved_threshold() is None
    assert build_config({**LEAST, "graph": {**own, "threshold": 0.1}}).graph.resolved_threshold() == 0.1


def test_a_preset_says_what_a_config_does_not():
    published = {**LEAST, "preset": "published"}
    plain = build_config(published)
    assert (plain.screen.copies, plain.graph.threshold, plain.select.phi.b) == ("keep", 0.9, 0.8)
    # whatever is given decides, also where it is null
    given = {"graph": {"threshold": None}, "select": {"phi": {"b": "auto"}, "budget": 7}, "screen": {"copies": "once"}}
    own = build_config({**published, **given})
    assert (own.graph.threshold, own.select.phi.b, own.select.phi.a, own.select.budget) == (None, "auto", 1e-6, 7)
    assert own.screen.copies == "once"
    # what has no use for a threshold, or is of another kind, is not given one
    assert build_config({**published, "graph": {"edges_path": "e.jsonl"}}).graph.threshold is None
    assert build_config({**published, "graph": {"edges": "cooccurrence"}}).graph.threshold is None
    assert build_config({**published, "select": {"strategy": "random"}}).select.strategy.kind == "random"
    assert build_config({**published, "select": {"phi": {"kind": "exp"}}}).select.phi.kind == "exp"
    # a record of it is the same config
    assert build_config(plain.to_dict()) == plain
    assert build_config(own.to_dict()) == own
    with pytest.raises(ConfigError, match="preset = 'paper'"):
        build_config({**LEAST, "preset": "paper"})


def test_the_preset_names_what_the_published_tool_has():
    from mig_spark.config.presets import PUBLISHED

    usual, preset = build_config(LEAST).to_dict(), build_config({**LEAST, "preset": "published"}).to_dict()
    differs = {f"{s}.{k}" for s in PUBLISHED for k in preset[s] if preset[s][k] != usual[s][k]}
    # docs/parameters.md lists these as the two that differ from the defaults
    assert differs == {"screen.copies", "graph.threshold"}


def test_every_key_of_select_says_what_it_is():
    from mig_spark.config import select

    sections = [c for c in vars(select).values() if isinstance(c, type) and issubclass(c, select.Section)]
    assert select.SelectConfig in sections
    for section in sections:
        assert all(field.description for field in section.model_fields.values()), section


@given(
    parts=st.lists(st.integers(0, 1000), min_size=1, max_size=6),
    places=st.integers(3, 6),
    budget=st.integers(0, 2**40),
)
def test_shares_are_rounded_to_rows_as_decimals(parts, places, budget):
    whole = 10**places
    for n in parts:
        share = float(f"{n}e-{places}")
        down, up = n * budget // whole, -(-n * budget // whole)
        assert QuotaLimit(share=share).of(budget) == QuotaLimit(min=down, max=up)
        assert QuotaLimit(min_share=share).of(budget) == QuotaLimit(min=up)
        assert QuotaLimit(max_share=share, min=3 if down >= 3 else 0).of(budget).max == down
        assert QuotaLimit(max_share=share).of(float(budget), whole=False).max == pytest.approx(share * budget)
    # shares that add up to the whole budget can be met, whatever is rounded
    if sum(parts) <= whole:
        limits = [QuotaLimit(share=float(f"{n}e-{places}")).of(budget) for n in [*parts, whole - sum(parts)]]
        assert sum(x.min for x in limits) <= budget <= sum(x.max or 0 for x in limits)


@pytest.mark.parametrize(
    ("select", "told"),
    [
        ({"quotas": {"each": {"share": 0.1, "max": 5}}}, "share says both the least and the most: leave out max"),
        ({"quotas": {"each": {"share": 0.1, "max": 0}}}, "share says both the least and the most: leave out max"),
        ({"budget": 10, "quotas": {"each": {"min_share": 0.25, "max_share": 0.25}}}, "at least 3 and at most 2 rows"),
        ({"budget": 10, "quotas": {"each": {"min": 60, "max_share": 0.5}}}, "at least 60 and at most 5 rows"),
        ({"quotas": {"each": {"min": 1, "min_share": 0.1}}}, "min and min_share both say the least"),
        ({"quotas": {"each": {"max": 1, "max_share": 0.1}}}, "max and max_share both say the most"),
        ({"quotas": {"each": {"min_share": 0.2, "max_share": 0.1}}}, r"min_share 0\.2 is above max_share 0\.1"),
        ({"quotas": {"each": {"max": 1.5}}}, "max is a number of rows, so it must be whole"),
        ({"quotas": {"unit": "cost"}}, r"counts units of select\.cost, which is not there"),
        ({"quotas": {"unit": "cost", "each": {"share": 0.1}}, "cost": {"budget": 9}}, "unit: cost has no minimum"),
        ({"quotas": {"each": {"min_share": 0.1}}, "cost": {"budget": 9}}, "a minimum and a cost cannot be promised"),
        (
            {"budget": None, "quotas": {"each": {"max_share": 0.1}}, "cost": {"budget": 9}},
            "which is null; give a number",
        ),
    ],
)
def test_quotas_that_cannot_be_are_refused(select, told):
    with pytest.raises(ConfigError, match=told):
        build_config({**LEAST, "select": select})


def test_groups_of_near_duplicates_and_quotas_are_no_pair():
    plain = {"pool": {"path": "p"}, "output": {"path": "o"}, "screen": {"near_duplicates": {}}}
    assert build_config(plain).screen.max_per_group == 1
    quotas = {"select": {"quotas": {"column": "source", "each": {"max": 5}}}}
    with pytest.raises(ConfigError, match=r"max_per_group and select\.quotas both put rows into classes.*null"):
        build_config({**plain, **quotas})
    free = {"screen": {"near_duplicates": {"max_per_group": None}}}
    assert build_config({**plain, **quotas, **free}).screen.max_per_group is None
    assert build_config({**plain, "screen": {"copies": "keep", "near_duplicates": {}}}).screen.enabled
