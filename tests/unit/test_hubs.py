"""Labels that a row gets of those offered, against a plain loop; no JVM."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.annotation.annotator import Among
from mig_spark.annotation.annotators import make_tagger
from mig_spark.annotation.taggers.distilled import DistilledTagger
from mig_spark.annotation.taggers.embedding import EmbeddingTagger
from mig_spark.kernels.annotation.embedding import REQUEST_CHARS, REQUEST_HEAD, REQUEST_TAIL, request_text, row_texts
from mig_spark.kernels.annotation.hubs import choose_labels, places_back

LISTS = st.lists(st.none() | st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=8)


@given(LISTS, st.dictionaries(st.sampled_from("abcdefg"), st.integers(-3, 3).map(float)), st.integers(1, 4))
def test_labels_are_those_with_the_least_place_and_places_back(
    rows: list[list[str] | None], back: dict[str, float], top: int
) -> None:
    expected = []
    for row in rows:
        ranked = sorted(enumerate(row or ()), key=lambda pair: (pair[0] + back.get(pair[1], 0.0), pair[0]))
        expected.append(None if row is None else [label for _, label in ranked[:top]])
    offered = pa.array([["x"], *rows, None], pa.list_(pa.string())).slice(1, len(rows))
    assert choose_labels(offered, back, top).to_pylist() == expected


def test_a_label_falls_back_by_the_doublings_of_its_rows() -> None:
    counts = {"everywhere": 1000, "as others": 100, "rare": 1, **{f"l{k}": 40 for k in range(10)}}
    back = places_back(counts, 3.0)
    mean = sum(counts.values()) / len(counts)
    assert back["everywhere"] - back["as others"] == pytest.approx(3 * math.log2((1000 + 10) / (100 + 10)), abs=1e-5)
    assert back["rare"] < 0 < back["everywhere"]
    assert mean == pytest.approx(115.46, abs=0.01)
    # with a handful of rows counts say nothing yet: not one place is lost
    assert max(places_back({"a": 5, "b": 3, "c": 1}, 3.0).values()) < 1
    assert places_back({}, 3.0) == {}


def test_without_hubs_the_nearest_labels_stay_first() -> None:
    offered = pa.array([["a", "b", "c"], [], ["c"]], pa.list_(pa.string()))
    assert choose_labels(offered, {}, 2).to_pylist() == [["a", "b"], [], ["c"]]
    # the label of all rows gives way to those that tell rows apart
    crowd = [["all", f"own {k % 50}", f"other {k % 40}"] for k in range(400)]
    counts = {"all": 400, **{f"own {k}": 8 for k in range(50)}, **{f"other {k}": 10 for k in range(40)}}
    chosen = choose_labels(pa.array(crowd, pa.list_(pa.string())), places_back(counts, 3.0), 2).to_pylist()
    assert all("all" not in labels for labels in chosen)


def test_the_text_of_a_request() -> None:
    long = "Given the passage below. " + "x" * 2000 + " Which city is meant?"
    text = request_text(long, "Rome")
    assert text == f"{long[:REQUEST_HEAD]}\n{long[-REQUEST_TAIL:]}\nRome"
    assert request_text("Go on.", "y" * 1000) == "Go on.\n" + "y" * (REQUEST_CHARS - len("Go on."))
    assert request_text("z" * 260, "") == "z" * 260
    assert request_text("", "only") == "only"
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    talk = [{"role": role, "content": content} for role, content in (("user", long), ("assistant", "Rome"))]
    more = [*talk, {"role": "user", "content": "And then?"}]
    found = row_texts(pa.array([talk, more], kind), "request")
    assert found[0] == text
    assert found[1] == row_texts(pa.array([more], kind))[0]


@pytest.mark.parametrize("kind", [EmbeddingTagger, DistilledTagger])
def test_what_is_offered_is_a_matter_of_the_row_alone(kind: type[EmbeddingTagger] | type[DistilledTagger]) -> None:
    """How labels are chosen is applied where the pool is read: another choice asks no model again."""
    tagger = make_tagger(kind())
    assert tagger.among == Among(kind().top, kind().hubs)
    other = make_tagger(kind(top=2, hubs=1.5))
    assert (other.version, other.among) == (tagger.version, Among(2, 1.5))
    plain = make_tagger(kind().alone())
    assert plain.among is None
    assert plain.step is not None
    assert plain.step.parameters["top"] == kind().top
    assert len({tagger.version, plain.version, make_tagger(kind(offered=20)).version}) == 3
    assert make_tagger(kind(text="row")).version != tagger.version
