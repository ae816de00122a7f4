"""The bundled vocabulary and sample, against what their README promises."""

import json
from collections import Counter

import pytest

from mig_spark.data import load_sample_kinds, load_vocabulary, sample_paths
from mig_spark.kernels.ingest.chat import Row, parse_record, parse_value
from mig_spark.kernels.ingest.rejects import ID_CLASH, Rejection

ALPACA = {"instruction", "input", "output", "source"}


@pytest.fixture(scope="module")
def outcomes():
    """Place -> what the ingest's parser makes of the record there."""
    general, tasks = sample_paths()
    lines = general.read_bytes().removesuffix(b"\n").split(b"\n")
    elements = json.loads(tasks.read_text(encoding="utf-8"))
    found = {f"{general.name}:{n}": parse_record(line) for n, line in enumerate(lines, 1)}
    found |= {f"{tasks.name}:{n}": parse_value(value) for n, value in enumerate(elements, 1)}
    return found


@pytest.fixture(scope="module")
def usable(outcomes):
    bad = load_sample_kinds()["bad"]
    return {place: row for place, row in outcomes.items() if place not in bad}


def records(name):
    """The JSON records of one sample file that can be decoded."""
    [path] = [p for p in sample_paths() if p.name == name]
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    bad = load_sample_kinds()["bad"]
    lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    return [json.loads(line) for n, line in enumerate(lines, 1) if bad.get(f"{name}:{n}") != "broken JSON"]


def test_vocabulary_is_large_and_without_repeats():
    labels = load_vocabulary()
    assert len(labels) == 968
    assert len({label.lower() for label in labels}) == len(labels)


def test_labels_are_plain_lower_case_phrases():
    for label in load_vocabulary():
        assert label == " ".join(label.lower().split())
        assert 1 <= len(label.split()) <= 4, label
        assert label.replace(" ", "").replace("'", "").replace("+", "").isalnum(), label


def test_vocabulary_has_near_synonyms_for_the_label_graph():
    labels = set(load_vocabulary())
    for one, other in [
        ("unit conversion", "converting units"),
        ("sql query", "database query"),
        ("email writing", "writing an email"),
        ("math word problem", "arithmetic word problem"),
        ("customer service", "customer support"),
    ]:
        assert {one, other} <= labels


def test_sample_is_small():
    assert sum(path.stat().st_size for path in sample_paths()) < 400_000


def test_number_of_rows_a_kind(outcomes):
    kinds = load_sample_kinds()
    assert len(outcomes) == 517
    assert {kind: len(places) for kind, places in kinds.items()} == {"near_duplicate": 80, "poor": 49, "bad": 13}
    places = [place for kind in kinds.values() for place in kind]
    assert len(places) == len(set(places))
    assert set(places) <= set(outcomes)


def test_the_parser_rejects_the_bad_rows_for_the_stated_reason_and_no_others(outcomes):
    rejected = {place: o.reason for place, o in outcomes.items() if isinstance(o, Rejection)}
    # a clash of ids shows only across rows
    assert rejected == {place: why for place, why in load_sample_kinds()["bad"].items() if why != ID_CLASH}


def test_the_only_id_used_twice_is_that_of_the_clash(outcomes):
    clash = [place for place, why in load_sample_kinds()["bad"].items() if why == ID_CLASH]
    ids = Counter(o.id for o in outcomes.values() if isinstance(o, Row) and o.id is not None)
    one, other = (outcomes[place] for place in clash)
    assert one.id == other.id
    assert one.content_hash != other.content_hash
    assert [i for i, count in ids.items() if count > 1] == [one.id]


def test_usable_rows_are_all_different(usable):
    assert len(usable) == 504
    assert len({row.content_hash for row in usable.values()}) == 504


def test_near_duplicates_point_at_good_rows(usable):
    kinds = load_sample_kinds()
    good = set(usable) - set(kinds["near_duplicate"]) - set(kinds["poor"])
    assert len(good) == 375
    assert set(kinds["near_duplicate"].values()) <= good


def test_schemas_and_sources(usable):
    schemas = Counter((place.partition(":")[0], row.schema) for place, row in usable.items())
    assert schemas == {("general.jsonl", "messages"): 217, ("tasks.json", "alpaca"): 287}
    sources = Counter(row.source for place, row in usable.items() if place.startswith("tasks"))
    assert sources == {"maths": 125, "coding": 67, "kitchen": 22, "writing": 17, None: 56}
    assert {row.source for place, row in usable.items() if place.startswith("general")} == {None}


def test_tasks_are_alpaca_rows_without_ids():
    assert all(set(r) <= ALPACA for r in records("tasks.json") if isinstance(r, dict))


def test_shapes_of_conversations(usable):
    turns = [[role for role, _ in row.messages] for row in usable.values()]
    assert sum(roles.count("user") > 1 for roles in turns) == 12
    assert sum(roles[0] == "system" for roles in turns) == 8
    assert {roles[-1] for roles in turns} == {"assistant"}
    in_parts = [
        r
        for r in records("general.jsonl")
        if isinstance(r, dict) and any(isinstance(m["content"], list) for m in r.get("messages", ()))
    ]
    assert len(in_parts) == 13


def test_one_text_has_a_line_separator_inside(usable):
    texts = [text for row in usable.values() for _, text in row.messages]
    assert sum("\u2028" in text for text in texts) == 1


def test_poor_answers_are_short_or_say_so(usable):
    for place, why in load_sample_kinds()["poor"].items():
        answer = usable[place].messages[-1][1]
        assert len(answer) < 220, (place, why)
        if why in ("empty", "short", "noise"):
            assert len(answer) < 20, place
        if why == "refusal":
            assert "cannot" in answer or "can't" in answer or "not able" in answer or "unable" in answer, place
        if why == "repetitive":
            assert len(set(answer.lower().split())) <= len(answer.split()) / 2, place


def test_some_rows_are_not_english(usable):
    texts = [row.messages[0][1] for row in usable.values()]
    assert sum(any("\u4e00" <= c <= "\u9fff" for c in text) for text in texts) == 5
    assert any("¿" in text for text in texts)
    assert any(text.startswith("Erkläre") for text in texts)
    assert any(text.startswith("Écris") for text in texts)
