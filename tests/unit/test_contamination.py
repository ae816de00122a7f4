"""Text in common with evaluation sets: the kernel against plain Python, and what counts as the same text."""

from __future__ import annotations

import pickle
import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mig_spark.errors import InputError
from mig_spark.kernels.screen.overlap import GRAM, EvalIndex, EvalText, Overlap, find_overlaps, index_texts
from mig_spark.kernels.screen.tokens import tokenise
from mig_spark.lakehouse.lists import read_list
from mig_spark.screen.contamination import texts_in
from mig_spark.udfs import overlaps_of_rows

ITEM = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
NUMBERS = "A baker makes 12 loaves an hour and sells each for 3 dollars. How much does she earn in 8 hours?"
CHINESE = "小明在四月份卖给了48个朋友每人一个发夹,五月份卖出的数量是四月份的一半。"
THAI = "ในเดือนเมษายนนาตาเลียขายกิ๊บติดผมให้เพื่อนของเธอจำนวนสี่สิบแปดคน"
SHORT = "Which planet of the solar system has the most moons?"


def overlaps(index: EvalIndex, *rows: list[str]) -> list[Overlap]:
    return find_overlaps([t for row in rows for t in row], np.cumsum([0, *map(len, rows)]), index)


def only(item: str, min_tokens: int = 8) -> EvalIndex:
    return index_texts(["set"], [EvalText(0, "item", item, min_tokens)])


@pytest.mark.parametrize(
    ("item", "text", "hit"),
    [
        (ITEM, ITEM, True),
        (ITEM, f"Solve this, step by step. {ITEM} Give the number alone.", True),
        (ITEM, ITEM.replace(" ", "\n", 9).replace(". ", ".\r\n\t> "), True),
        (ITEM, f"<p>{ITEM.upper().replace(',', ' --')}</p>".replace("?", "!"), True),
        (ITEM, unicodedata.normalize("NFD", ITEM.translate({i: i + 0xFEE0 for i in range(0x21, 0x7F)})), True),
        (ITEM, " ".join(ITEM.split()[2:15]), True),
        (ITEM, " ".join(ITEM.split()[2:14]), False),
        (NUMBERS, NUMBERS, True),
        (NUMBERS, NUMBERS.replace("12", "15").replace("3", "4").replace("8", "6"), False),
        (ITEM, ITEM.replace("48", "52"), True),  # for so much else stands as it was
        (ITEM, ITEM.replace(" ", ""), False),
        (SHORT, "Tell me: which planet of the Solar System\nhas the most moons", True),
        (SHORT, "Which planet of the solar system has the most rings?", False),
        (SHORT, "which planet of the solar system has the most", False),
        ("yes", "yes", False),
        ("What is six times seven?", "What is six times seven?", False),
        (CHINESE, f"请回答:{CHINESE}一共多少个?", True),
        (CHINESE, "\n".join(CHINESE).replace(",", ",\n"), True),
        (CHINESE, CHINESE.replace("四", "六").replace("48", "30").replace("发夹", "苹果"), False),
        (THAI, f"โจทย์ {THAI[:20]} {THAI[20:]}", True),
    ],
)  # fmt: skip
def test_what_counts_as_the_same_text(item: str, text: str, hit: bool) -> None:
    assert bool(overlaps(only(item), ["an answer", text])) == hit


def test_a_set_may_ask_for_shorter_texts_and_short_ones_are_told() -> None:
    index = index_texts(
        ["set"], [EvalText(0, str(k), t, 5) for k, t in enumerate(["What is six times seven?", "yes", ""])]
    )
    assert index.sought.tolist() == [True, False, False]
    assert [o.item for o in overlaps(index, ["so what is six times seven, then?"])] == ["0"]
    assert overlaps(only("yes"), ["yes"]) == []
    assert overlaps(only(ITEM)) == overlaps(only(ITEM), [], [""]) == []


def test_each_set_is_told_with_the_whole_of_what_is_in_common() -> None:
    words = [f"word{k}" for k in range(30)]
    item = " ".join([*words, "end"])
    index = index_texts(
        ["a", "b"], [EvalText(0, "7", "other " + item, 8), EvalText(0, "8", item, 8), EvalText(1, "x", item, 8)]
    )
    rows = [["nothing"], ["-", f"begin {' '.join(words[3:20])} end", item], [], ["", item]]
    found = overlaps(index, *rows)
    assert [(o.row, o.name, o.item, o.tokens) for o in found] == [
        (1, "a", "7", 17), (1, "b", "x", 17), (3, "a", "7", 31), (3, "b", "x", 31),
    ]  # fmt: skip
    assert found[0].span == " ".join(words[3:20])
    assert len(found[3].span) == 200
    assert found[3].span.endswith("…")


#: Few words, so that runs repeat, overlap and nearly agree.
TEXT = st.lists(st.sampled_from(["a", "b", "C,", "北", "é", "1"]), max_size=30).map(" ".join)


def plain_tokens(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return re.findall(r"[一-鿿]|[^\W_一-鿿]+", folded)


def plain_hits(item: str, min_tokens: int, text: str) -> bool:
    sought, there = plain_tokens(item), plain_tokens(text)
    size = min(len(sought), GRAM)
    if size < min_tokens:
        return False
    runs = {tuple(sought[k : k + size]) for k in range(len(sought) - size + 1)}
    return any(tuple(there[k : k + size]) in runs for k in range(len(there) - size + 1))


@given(
    sets=st.lists(st.tuples(st.integers(1, GRAM), st.lists(TEXT, max_size=4)), min_size=1, max_size=3),
    rows=st.lists(st.lists(TEXT, max_size=3), max_size=4),
)
def test_rows_are_found_as_by_plain_python(sets: list[tuple[int, list[str]]], rows: list[list[str]]) -> None:
    texts = [EvalText(k, f"{k}.{i}", t, least) for k, (least, items) in enumerate(sets) for i, t in enumerate(items)]
    index = index_texts([str(k) for k in range(len(sets))], texts)
    found = overlaps(index, *rows)
    want = {
        (r, str(k)) for r, row in enumerate(rows) for k, (least, items) in enumerate(sets)
        if any(plain_hits(item, least, text) for item in items for text in row)
    }  # fmt: skip
    assert [(o.row, o.name) for o in found] == sorted(want)
    for o in found:
        # what is told is really there, and in the item that it names
        [item] = [t.text for t in texts if t.item == o.item]
        run, size = plain_tokens(o.span), o.tokens
        assert len(run) == size
        assert any(run == plain_tokens(t)[k : k + size] for t in rows[o.row] for k in range(len(plain_tokens(t))))
        assert any(run == plain_tokens(item)[k : k + size] for k in range(len(plain_tokens(item))))


@given(st.lists(st.text(max_size=20), max_size=5))
def test_tokens_of_any_text(texts: list[str]) -> None:
    tokens = tokenise(texts)
    assert len(tokens.ptr) == len(texts) + 1
    assert tokens.ptr[-1] == len(tokens.starts) == len(tokens.hashes)
    for k, text in enumerate(texts):
        own = [tokens.text(i, 1) for i in range(tokens.ptr[k], tokens.ptr[k + 1])]
        assert own == [tokenise([one]).text(0, 1) for one in own]
        folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
        assert "".join(own) == "".join(c for c in folded if unicodedata.category(c)[0] in "LMN")


def test_many_rows_are_scanned_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mig_spark.kernels.screen.overlap._PIECE", 100)
    rows = [["filler " * 9, ITEM if k % 3 == 0 else "else"] for k in range(20)]
    assert [o.row for o in overlaps(only(ITEM), *rows)] == list(range(0, 20, 3))


def test_a_list_may_have_too_many_rows_and_lack_what_is_optional(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('{"q": "one", "id": 7}\n{"q": ["two", {"a": "three"}]}\n', encoding="utf-8")
    found = read_list(str(file), {"q": "text", "id": "text", "no": "text"}, "path", spark=None, optional=["id", "no"])
    assert found.to_pylist() == [{"q": "one", "id": "7"}, {"q": '["two", {"a": "three"}]', "id": None}]
    assert list(texts_in(found["q"][1].as_py())) == ["two", "three"]
    with pytest.raises(InputError, match="no are needed; it has q, id"):
        read_list(str(file), {"q": "text", "no": "text"}, "path", spark=None)
    with pytest.raises(InputError, match="more than 1 rows"):
        read_list(str(file), {"q": "text"}, "path", spark=None, most=1)


def test_a_partition_gives_its_rows_with_text_in_common() -> None:
    turns = [[("user", "hi")], [("user", "-"), ("assistant", ITEM)], [], [("user", ITEM.upper()), ("assistant", "x")]]
    messages = pa.array([[{"role": r, "content": c} for r, c in row] for row in turns])
    batch = pa.RecordBatch.from_pydict({"id": ["a", "b", "c", "d"], "messages": messages})
    index = pickle.loads(pickle.dumps(only(ITEM)))
    # a part of a batch has offsets that do not begin at 0
    [none, some] = overlaps_of_rows(lambda: index)(iter([batch.slice(0, 1), batch.slice(1)]))
    assert none.num_rows == 0
    assert some.column("id").to_pylist() == ["b", "d"]
    [[b], [d]] = some.column("contamination").to_pylist()
    assert (b["name"], b["item"], b["tokens"], d["span"]) == ("set", "item", 31, b["span"])


def test_a_run_that_many_items_of_several_sets_share_is_kept_once_a_set() -> None:
    shared = " ".join(f"shared{k}" for k in range(GRAM))
    texts = [EvalText(of, f"{of}.{k}", f"{shared} own{of}x{k}", 8) for of in (1, 0) for k in range(50)]
    index = index_texts(["zero", "one"], texts)
    found = find_overlaps([shared], np.array([0, 1]), index)
    assert {(o.name, o.item, o.tokens) for o in found} == {("one", "1.0", GRAM), ("zero", "0.0", GRAM)}
    # the shared run once a set, and of each text the run that ends with its own token
    assert len(index.hashes) == 2 + 100
