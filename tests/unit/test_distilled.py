"""Static vectors: the cache on disk, the weighted mean against brute force, the real model's labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_embedder

from mig_spark.annotation.sample_rows import sample_texts
from mig_spark.annotation.taggers.embedding import nearest
from mig_spark.errors import DependencyError, InputError
from mig_spark.kernels.annotation import distilled
from mig_spark.kernels.annotation.distilled import Static, _sums, embed_static, mean_vectors
from mig_spark.kernels.annotation.embedding import load_model


def words() -> Static:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({f"w{k}": k for k in range(20)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    vectors = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    vectors[0] = 0
    return Static(tokenizer, vectors, np.eye(6, 5, dtype=np.float32), vectors[:0])


STATIC = words()


@given(st.lists(st.lists(st.integers(0, 19), max_size=30), min_size=1, max_size=8), st.integers(1, 40))
def test_a_text_is_the_mean_of_its_tokens(rows: list[list[int]], limit: int) -> None:
    texts = [" ".join(f"w{k}" for k in row) for row in rows]
    found, truncated = mean_vectors(texts, STATIC.tokenizer, STATIC.vectors, max_tokens=limit)
    np.testing.assert_array_equal(embed_static(texts, STATIC, max_tokens=limit)[1], truncated)
    for vector, cut, row in zip(found, truncated, rows, strict=True):
        total = STATIC.vectors[row[:limit]].sum(axis=0) if row[:limit] else np.zeros(5)
        norm = np.linalg.norm(total)
        np.testing.assert_allclose(vector, total / norm if norm > 1e-6 else total, atol=1e-4)
        assert cut == (len(row) > limit)


def test_long_words_do_not_hide_what_follows() -> None:
    """Of a text only its first characters are looked at, unless they make too few tokens."""
    text = "w1" + " " * 10_000 + "w2"
    found, truncated = embed_static([text, "w1 w2"], STATIC, max_tokens=16)
    np.testing.assert_array_equal(found[0], found[1])
    assert not truncated.any()


def test_sums_of_nothing() -> None:
    assert _sums(np.zeros(3, np.int64), np.zeros(0, np.int32), STATIC.vectors).tolist() == [[0.0] * 5] * 2


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(DependencyError, match=r"annotate\.tagger\.cache_dir"):
        distilled.load_static("all-MiniLM-L6-v2", ["a"], [], identity="x", cache_dir=str(blocked))


LABELS = ["yeast dough", "sorts numbers", "emperor"]
SAMPLE = ["How does bread rise? Yeast makes gas", "Who was emperor after Augustus? Tiberius was."]


@pytest.mark.model
def test_distilled_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_embedder(tmp_path)
    cache = str(tmp_path / "cache")
    first = distilled.load_static(model, LABELS, SAMPLE, identity="tiny", cache_dir=cache)
    assert distilled.load_static(model, LABELS, SAMPLE, identity="tiny", cache_dir=cache) is first

    # another process: nothing is distilled again, so the model itself is not needed
    monkeypatch.setattr(distilled._WORKER, "models", {})
    again = distilled.load_static("/no/such/model", LABELS, SAMPLE, identity="tiny", cache_dir=cache)
    np.testing.assert_array_equal(again.vectors, first.vectors)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == ["", ".lock"]
    # another vocabulary or sample is another distillation, and that needs the model
    with pytest.raises(DependencyError, match="/no/such/model"):
        distilled.load_static("/no/such/model", LABELS, SAMPLE[:1], identity="tiny", cache_dir=cache)
    with pytest.raises(DependencyError, match="/no/such/model"):
        distilled.load_static("/no/such/model", LABELS[:2], SAMPLE, identity="tiny", cache_dir=cache)
    for texts in (["Yeast makes gas", "emperor after"], ["", "[CLS] [SEP]"]):
        vectors, _ = embed_static(texts, first, max_tokens=32)
        assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors, 0)


@pytest.mark.model
def test_another_machine_may_distil_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, folder = load_model(save_embedder(tmp_path), device="cpu"), tmp_path / "cache" / "distilled-x"
    whole = distilled.distill

    def slowly(*args: Any, **options: Any) -> Any:
        folder.mkdir(parents=True)
        (folder / "tokenizer.json").write_text("theirs")
        return whole(*args, **options)

    monkeypatch.setattr(distilled, "distill", slowly)
    distilled._write(folder, model, LABELS, SAMPLE, 256)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    assert (folder / "tokenizer.json").read_text() == "theirs"
    # a folder that cannot be made is an error all the same
    monkeypatch.setattr(distilled, "distill", whole)
    blocked = tmp_path / "cache" / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="file"):
        distilled._write(blocked, model, LABELS, SAMPLE, 256)


def test_a_row_without_a_known_word_has_no_label_whatever_the_floor() -> None:
    rows = np.array([[0.0, 0.0], [0.0, 1.0]], np.float32)
    made = nearest(
        ["?!", "b"], rows, np.zeros(2, bool), ["a", "b"], np.eye(2, dtype=np.float32), top=1, floor=-1, margin=2
    )
    assert made["labels"].to_pylist() == [[], ["b"]]


@pytest.mark.model
def test_tokens_and_labels_are_what_the_model_makes_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distilled, "_LISTS", 0)
    encoder = load_model(save_embedder(tmp_path), device="cpu")
    tokenizer = encoder.model.tokenizer
    vectors = distilled._token_vectors(encoder)
    words = ["Yeast", "gas", "emperor"]
    expected = encoder.model.encode(words, show_progress_bar=False)
    np.testing.assert_allclose(vectors[tokenizer.convert_tokens_to_ids(words)], expected, atol=1e-5)
    table, fitted, near = distilled.distill(encoder, LABELS, SAMPLE)
    own = encoder.model.encode([*LABELS, *SAMPLE], normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(near, own[:3], atol=1e-4)
    # the map is what least squares makes of the problem with the ridge as further equations
    backend = tokenizer.backend_tokenizer
    means, _ = mean_vectors([*LABELS, *SAMPLE], backend, table, max_tokens=256)
    # "yeast dough" has no token that it knows
    assert [bool(row.any()) for row in means] == [False, True, True, True, True]
    source = np.hstack([means, np.ones((5, 1))])[1:]
    wide = np.vstack([source, np.sqrt(distilled._RIDGE) * np.eye(source.shape[1])])
    solved, *_ = np.linalg.lstsq(wide, np.vstack([own[1:], np.zeros((source.shape[1], own.shape[1]))]), rcond=None)
    np.testing.assert_allclose(fitted, solved, atol=1e-3)
    found, _ = embed_static([*LABELS, *SAMPLE], Static(backend, table, fitted, near), max_tokens=256)
    assert not found[0].any()
    np.testing.assert_allclose(np.linalg.norm(found[1:], axis=1), 1.0, rtol=1e-5)
    assert not table[tokenizer.all_special_ids].any()
    signs = tokenizer.convert_tokens_to_ids(["1", "a"])
    assert not table[signs].any()
    assert table[tokenizer.convert_tokens_to_ids("面包")].any()


def test_characters_without_an_order_weigh_the_same() -> None:
    kinds = np.array([distilled._kind(t) for t in ("[unused1]", "发", "酵", "a", "7", "the", "##ing", "bread", "of")])
    weights = distilled._weights(kinds)
    assert weights[0] == weights[3] == weights[4] == 0
    assert 0 < weights[5] < weights[6] < weights[7] < weights[8]
    assert weights[5] < weights[1] == weights[2] < weights[8]


def test_rows_to_fit_on(tmp_path: Path) -> None:
    assert len(sample_texts("builtin")) > 400
    rows = tmp_path / "rows.jsonl"
    lines = [json.dumps({"instruction": f"ask {k}", "output": "answer"}) for k in range(3)]
    rows.write_text("\n".join([*lines, "{broken", lines[0]]))
    assert sorted(sample_texts(str(rows))) == [f"ask {k}\nanswer" for k in range(3)]
    # the order of the file says nothing
    before = sample_texts(str(rows))
    rows.write_text("\n".join(reversed(lines)))
    assert sample_texts(str(rows)) == before
    rows.write_text("{}")
    for path in (rows, tmp_path / "none.jsonl"):
        with pytest.raises(InputError, match=r"annotate\.tagger\.sample"):
            sample_texts(str(path))
