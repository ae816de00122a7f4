"""The embedding kernel with the real model (marker `model`) and its pure parts without."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_embedder

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation import embedding, model_files, models
from mig_spark.kernels.annotation.embedding import (
    ANSWER_CHARS,
    DIALOGUE_CHARS,
    Encoder,
    embed_labels,
    embed_texts,
    load_model,
    row_text,
    row_texts,
)
from mig_spark.kernels.annotation.model_files import model_folder, model_identity
from mig_spark.kernels.annotation.models import loaded_models, token_batches
from mig_spark.kernels.annotation.nearest import nearest_labels

Labels = list[npt.NDArray[np.int32]]
MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def tag_rows(rows: npt.NDArray[np.float32], labels: npt.NDArray[np.float32], **limits: Any) -> Labels:
    ptr, found = nearest_labels(rows, labels, **limits)
    assert (len(ptr), ptr[-1]) == (len(rows) + 1, len(found))
    return np.split(found, ptr[1:-1])


@pytest.fixture(scope="module")
def encoder() -> Iterator[Encoder]:
    """The model, loaded where every look-up of a host is an error: the bundled one asks no hub."""

    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a host was looked up: {args}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", no_network)
        yield load_model(MODEL, threads=2)


@pytest.mark.model
def test_the_nearest_labels_of_clear_texts(encoder: Encoder) -> None:
    labels = ["baking bread", "sorting algorithms", "roman history", "personal finance", "vegetable gardening"]
    texts = [
        "Why does my sourdough loaf not rise in the oven?",
        "Explain how quicksort picks a pivot and what its worst case is.",
        "Who was emperor after Augustus?",
        "How much of my salary should I save each month?",
        "When should I plant tomatoes and carrots outside?",
    ]
    vectors, truncated = embed_texts(texts, encoder)
    found = tag_rows(vectors, embed_labels(labels, encoder), top=1, floor=0.1, margin=0.5)
    assert [near.tolist() for near in found] == [[0], [1], [2], [3], [4]]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert not truncated.any()


@pytest.mark.model
def test_batching_and_padding_do_not_change_the_vectors(encoder: Encoder) -> None:
    texts = [
        "short",
        "a much longer sentence about the weather in the mountains " * 5,
        "",
        "面包",
        "mid length text here",
    ]
    expected = encoder.model.encode(texts, show_progress_bar=False, normalize_embeddings=True)
    for batch_tokens in (64, 8192):
        vectors, _ = embed_texts(texts, encoder, batch_tokens=batch_tokens)
        np.testing.assert_allclose(vectors, expected, atol=2e-6)
    assert embed_texts([], encoder)[0].shape == (0, expected.shape[1])


@pytest.mark.model
@pytest.mark.parametrize("in_hardware", [True, False])
def test_bfloat16_gives_nearly_the_same_vectors(
    encoder: Encoder, in_hardware: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "cpu_has_bfloat16", lambda: in_hardware)
    monkeypatch.setattr(embedding, "_WORKER", embedding._Worker())
    rounded = load_model(MODEL, device="cpu", threads=2, dtype="bfloat16")
    assert load_model(MODEL, device="cpu", dtype="bfloat16") is rounded
    weights = next(rounded.model.parameters())
    assert str(weights.dtype) == ("torch.bfloat16" if in_hardware else "torch.float32")
    assert (weights.bfloat16().float() == weights.float()).all()
    texts = ["Why does my loaf not rise?", "面包", "Who was emperor after Augustus? " * 20]
    exact, near = (embed_texts(texts, e)[0] for e in (encoder, rounded))
    assert (exact != near).any()
    assert np.sum(exact * near, axis=1).min() > 0.999


@pytest.mark.model
def test_truncation_is_told_exactly(encoder: Encoder) -> None:
    # the model's two special tokens leave 14 of 16 for the text; "a" is one token
    texts = ["a " * 14, "a " * 15, "a " * 5000, "a"]
    vectors, truncated = embed_texts(texts, encoder, max_tokens=16)
    assert truncated.tolist() == [False, True, True, False]
    np.testing.assert_allclose(vectors[0], vectors[2], atol=2e-6)
    # the model's own limit of 256 tokens holds whatever is asked
    assert embed_texts(["a " * 300], encoder, max_tokens=10_000)[1].tolist() == [True]


@pytest.mark.model
def test_one_load_a_process(encoder: Encoder, capfd: pytest.CaptureFixture[str]) -> None:
    before = loaded_models()
    assert load_model(MODEL, threads=1) is encoder
    embed_labels(["a", "b"], encoder)
    assert loaded_models() == before
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@pytest.mark.model
def test_a_model_that_is_saved_over_another_is_loaded_anew(tmp_path: Path) -> None:
    folder = save_embedder(tmp_path)
    first = load_model(folder, device="cpu")
    before = embed_labels(["Yeast gas"], first)
    assert load_model(folder, device="cpu") is first
    for weights in first.model.parameters():
        weights.data *= -0.5
    first.model.save(folder)
    second = load_model(folder, device="cpu")
    assert second is not first
    assert not np.allclose(embed_labels(["Yeast gas"], second), before)
    assert load_model(folder, device="cpu") is second


@pytest.mark.model
def test_a_folder_that_is_no_model(tmp_path: object, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(DependencyError, match="cannot load the embedding model"):
        load_model(str(tmp_path))


def test_the_bundled_model_needs_no_hub() -> None:
    folder = model_folder("all-MiniLM-L6-v2")
    assert folder is not None
    assert (folder / "config.json").is_file()
    assert model_identity("all-MiniLM-L6-v2") == model_identity(MODEL)
    assert model_folder("someone/another-model") is None
    assert model_identity("someone/another-model") == "someone/another-model"


def test_weights_that_were_not_published_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of the same name with one other byte in its weights, and one without them."""
    published = model_folder(MODEL)
    assert published is not None
    package = tmp_path / "other_package"
    shutil.copytree(published, package / "model", ignore=shutil.ignore_patterns("model.safetensors"))
    (package / "__init__.py").write_text("")
    weights = package / "model" / "model.safetensors"
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(model_files, "BUNDLED_PACKAGE", "other_package")
    with pytest.raises(DependencyError, match=r"model.safetensors cannot be read \(No such file"):
        model_folder(MODEL)
    content = bytearray((published / "model.safetensors").read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(DependencyError) as e:
        model_folder("all-MiniLM-L6-v2")
    assert f"published {model_files.BUNDLED_SHA256}" in str(e.value)
    assert "give a folder with the model" in str(e.value)
    assert "\n" not in str(e.value)
    # what is put right is read again
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(1, 1))
    assert model_folder(MODEL) == package / "model"


def test_weights_are_read_once_a_process(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()
    models.check_weights(file, right, advice="")
    stat = file.stat()
    # the same size and time: what is in it is not looked at again
    file.write_bytes(b"abd")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    models.check_weights(file, right, advice="")


@pytest.mark.model
def test_a_model_may_be_a_folder_anywhere(tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    published = model_folder(MODEL)
    assert published is not None
    volume = tmp_path / "Volumes" / "main" / "files" / "model"
    volume.parent.mkdir(parents=True)
    volume.symlink_to(published)
    monkeypatch.setenv("HOME", str(tmp_path))
    want, _ = embed_texts(["a text"], encoder)
    for name in (str(volume), volume.as_uri(), "~/Volumes/main/files/model"):
        assert model_folder(name) == volume
        got, _ = embed_texts(["a text"], load_model(name, threads=1))
        np.testing.assert_array_equal(got, want)


def unit(rows: list[list[float]]) -> np.ndarray:
    v = np.array(rows, dtype=np.float32)
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def test_labels_are_in_order_of_similarity_and_ties_in_order_of_number() -> None:
    labels = unit([[0, 1], [1, 0], [1, 1], [1, 0], [-1, 0]])
    near = tag_rows(unit([[1, 0], [1, 1], [0, -1]]), labels, top=3, floor=-1.0, margin=2.0)
    assert [n.tolist() for n in near] == [[1, 3, 2], [2, 0, 1], [1, 3, 4]]
    assert [n.tolist() for n in tag_rows(unit([[1, 0]]), labels, top=9, floor=0.5, margin=2.0)] == [[1, 3, 2]]
    assert [n.tolist() for n in tag_rows(unit([[1, 0]]), labels, top=9, floor=0.5, margin=0.1)] == [[1, 3]]
    assert [n.tolist() for n in tag_rows(unit([[0, -1]]), labels, top=9, floor=0.5, margin=2.0)] == [[]]
    assert [n.tolist() for n in tag_rows(unit([[0, -1]]), labels[:0], top=9, floor=0.5, margin=2.0)] == [[]]


@given(
    st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6), st.floats(-1, 1), st.floats(0, 2), st.integers(1, 20)
)
def test_same_labels_as_sorting_everything(
    seed: int, n_labels: int, n: int, floor: float, margin: float, top: int
) -> None:
    rng = np.random.default_rng(seed)
    # small whole numbers give many equal similarities
    labels = unit((rng.integers(-2, 3, (n_labels, 3)) + np.array([0, 0, 0.5])).tolist())
    rows = unit((rng.integers(-2, 3, (n, 3)) + np.array([0, 0, 0.5])).tolist())
    cosine = np.round(rows @ labels.T, 6)
    for row, near in zip(cosine, tag_rows(rows, labels, top=top, floor=floor, margin=margin), strict=True):
        ranked = sorted(range(n_labels), key=lambda v: (-row[v], v))
        least = max(np.float32(floor), row.max() - np.float32(margin))
        assert near.tolist() == [v for v in ranked if row[v] >= least][:top]


@given(st.lists(st.integers(1, 256), max_size=60), st.integers(64, 1024))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], batch_tokens: int) -> None:
    taken = [rows.tolist() for rows in token_batches(np.array(lengths, dtype=np.int64), batch_tokens)]
    assert sorted(r for rows in taken for r in rows) == list(range(len(lengths)))
    for rows in taken:
        assert len(rows) == 1 or len(rows) * max(lengths[r] for r in rows) <= batch_tokens


def test_the_text_of_a_row() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": " First question "},
        {"role": "assistant", "content": "A" * 1000},
        {"role": "user", "content": "Second question"},
        {"role": "assistant", "content": "B"},
    ]
    assert row_text(messages[:3]) == "First question\n" + "A" * ANSWER_CHARS
    assert row_text(messages) == "First question\n" + "A" * ANSWER_CHARS + "\nSecond question\nB"
    assert row_text(messages[:2]) == "First question"
    assert row_text([{"role": "user", "content": None}, {"role": "assistant", "content": "only"}]) == "only"
    assert row_text(None) == row_text([]) == ""


@given(st.lists(st.text("abc发", min_size=1, max_size=2000), min_size=2, max_size=40))
def test_all_turns_of_a_dialogue_have_a_fair_share(texts: list[str]) -> None:
    talk = [{"role": "user" if k % 2 == 0 else "assistant", "content": text} for k, text in enumerate([*texts, "end"])]
    parts = row_text(talk).split("\n")
    assert len(parts) == len(talk)
    share = max(map(len, parts))
    assert sum(map(len, parts)) <= max(DIALOGUE_CHARS, len(talk))
    for turn, part in zip(talk, parts, strict=True):
        most = 2000 if turn["role"] == "user" else ANSWER_CHARS
        assert part == turn["content"][: min(most, share)]
    # no turn is cut that could have more
    cut = [k for k, part in enumerate(parts) if len(part) < min(len(talk[k]["content"]), 2000 if k % 2 == 0 else 400)]
    assert not cut or sum(map(len, parts)) + len(cut) > DIALOGUE_CHARS


TALK = st.none() | st.lists(
    st.fixed_dictionaries({
        "role": st.sampled_from(["user", "assistant", "system", "tool"]) | st.none(),
        "content": st.none() | st.text(" \n\x1cab发", max_size=6) | st.just("A" * 500),
    }),
    max_size=5,
)  # fmt: skip


@given(st.lists(TALK, max_size=6), st.integers(0, 2))
def test_texts_of_a_column_are_those_of_its_rows(talks: list[Any], skipped: int) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    column = pa.array(talks, kind).slice(min(skipped, len(talks)))
    assert row_texts(column) == [row_text(talk) for talk in talks[skipped:]]
