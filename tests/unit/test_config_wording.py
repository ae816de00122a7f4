"""What is wrong with a value of a config is said in words of ours, which say what to give."""

from __future__ import annotations

import pytest
from pydantic_core._pydantic_core import list_all_errors

from mig_spark.config import parse_config
from mig_spark.config.wording import _WORDS, in_words
from mig_spark.errors import ConfigError

WORDED = [error for error in list_all_errors() if error["type"] in _WORDS]


def test_the_types_of_errors_are_pydantics() -> None:
    assert {error["type"] for error in WORDED} == set(_WORDS)


@pytest.mark.parametrize("error", WORDED, ids=lambda error: str(error["type"]))
def test_what_is_in_braces_is_in_the_context_of_the_error(error: dict) -> None:
    said = in_words({"type": error["type"], "msg": "", "input": 5, "ctx": error["example_context"] or {}})
    assert said.startswith("give "), "and no KeyError"
    assert "{" not in said


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("select.budget", "many", "= 'many': give a whole number"),
        ("select.budget", "2.5", "= 2.5: give a whole number"),
        ("select.budget", "-3", "= -3: give at least 0"),
        ("graph.threshold", "x", "= 'x': give a number, or the word auto"),
        ("graph.threshold", "7", "= 7: give at most 1, or the word auto"),
        ("graph.engine", "kernels", "= 'kernels': give 'auto', 'graphframes' or 'kernel'; did you mean 'kernel'?"),
        ("pool.path", "[]", ": the list is empty: name at least one"),
        ("pool.path", "5", "= 5: give text, or a list of texts"),
        ("pool.path", "[a, 5]", ": give text, or a list of texts"),
        ("pool.kinds", "sft", "= 'sft': give a list"),
        ("pool.kinds", "[sfft]", ".0 = 'sfft': give 'sft', 'preference', .*did you mean 'sft'"),
        ("pool.columns", "{promt: a}", " has no 'promt': give .*; did you mean 'prompt'"),
        ("annotate.score.control", "[lenght]", ": give 'source', 'length' or 'tokens', or a list of these"),
        ("select", "null", "= null: give a mapping: its keys, each with its value"),
        ("select.cost", "5", "= 5: give a mapping: its keys, each with its value; select.cost has .*budget, .*column"),
        ("spark.conf", "[a]", ": give a mapping"),
        ("spark.driver_memory", "lots", "= 'lots': give a number and k, m, g or t, such as 2g or 1500m"),
        ("spark.driver_memory", "2gb", "= '2gb': give a number and k"),
        ("seed", "-1", "= -1: give at least 0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_with_what_to_give(key: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}.*{told}") as refused:
        parse_config("pool: {path: pool}\noutput: {path: out}", [f"{key}={value}"])
    assert "Input should" not in str(refused.value)
