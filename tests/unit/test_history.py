"""The runs on record in words: what they asked of endpoints, and what that cost."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from mig_spark.config import build_config
from mig_spark.curation.history import PastRun, describe_run, describe_runs, price_of

BEGAN = dt.datetime(2026, 3, 1, 4, 5, 6, tzinfo=dt.timezone.utc)
PAID = {"requests": 1_204, "prompt_tokens": 900_000, "completion_tokens": 100_000}


def run(name: str, **paid: float) -> PastRun:
    counts = {"read": 12, "selected": 3}
    return PastRun(name, "ok", "ingest select", None, BEGAN, BEGAN, {"select": 1.0}, counts, {}, {}, {}, None, paid)


def endpoint(**more: object) -> dict[str, object]:
    return {"kind": "endpoint", "base_url": "http://localhost:1/v1", "model": "m", **more}


def config_of(**annotate: object):
    return build_config({"pool": {"path": "p"}, "output": {"path": "o"}, "annotate": annotate})


def test_runs_that_asked_nothing_have_no_column_for_it() -> None:
    head, line = describe_runs([run("a")]).splitlines()
    assert "asked" not in head
    assert line.split() == ["a", "2026-03-01", "04:05:06", "ok", "0", "s", "12", "3", "ingest", "select"]
    assert "asked" not in describe_run(run("a"))


def test_what_was_asked_and_paid_is_told() -> None:
    told = describe_runs([run("a", **PAID), run("b", **PAID, dollars=4.5), run("c")])
    head, first, second, third = told.splitlines()
    assert "asked" in head
    assert "1,204 requests, 1,000,000 tokens  " in first
    assert "1,204 requests, 1,000,000 tokens, $4.50  " in second
    assert "requests" not in third
    assert "asked        1,204 requests, 1,000,000 tokens" in describe_run(run("a", **PAID))
    assert json.loads(json.dumps(run("a", **PAID).to_dict()))["paid"] == PAID


def test_kinds_and_what_an_extension_moved_are_told() -> None:
    moved = {
        "before": 9,
        "kept": 7,
        "entered": 3,
        "left": 2,
        "left_because": {"its content has changed": 2},
        "jaccard": 0.5,
    }
    counts = {"read": 12, "kinds": {"sft": 10, "kto": 2}, "moved": moved}
    certificate = {"objective": 1234.56789, "kept": 7, "rounds": 2}
    one = PastRun("a", "ok", "select", None, BEGAN, BEGAN, {"report": 2.0}, counts, certificate, {}, {}, None, {})
    told = describe_run(one)
    assert "kinds        sft: 10\n               kto: 2" in told
    assert "moved        before: 9\n               kept: 7\n               entered: 3" in told
    assert "left for     its content has changed: 2" in told
    assert "certificate  rounds: 2\n               kept: 7\n               objective: 1,234.6\n" in f"{told}\n"
    assert json.loads(json.dumps(one.to_dict()))["counts"]["moved"] == moved


PRICE, OTHER = {"prompt": 0.5, "completion": 2.0}, {"prompt": 1.0, "completion": 2.0}


@pytest.mark.parametrize(
    ("annotate", "price"),
    [
        ({}, None),
        ({"tagger": endpoint()}, None),
        ({"tagger": endpoint(price=PRICE)}, (0.5, 2.0)),
        ({"tagger": endpoint(price=PRICE), "scorer": endpoint(price=PRICE)}, (0.5, 2.0)),
        ({"tagger": endpoint(price=PRICE), "scorer": endpoint(price=OTHER)}, None),
        ({"tagger": endpoint(price=PRICE), "scorer": endpoint()}, None),
        ({"scorer": {"kind": "student", "teacher": endpoint(price=PRICE)}}, (0.5, 2.0)),
    ],
)
def test_a_price_is_told_where_there_is_one(annotate: dict[str, object], price: tuple[float, float] | None) -> None:
    assert price_of(config_of(**annotate)) == price
