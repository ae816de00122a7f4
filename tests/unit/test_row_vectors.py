"""Vectors of rows: made of messages by a model or by what is distilled from it, null where there is no text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tiny_models import save_embedder

from mig_spark import select
from mig_spark.annotation.vectors import embedder_version, make_embedder, vectors_here
from mig_spark.kernels.annotation.embedding import embed_texts, load_model, row_text
from mig_spark.udfs import vectors_of_rows

MESSAGES = [
    [{"role": "user", "content": "How does bread rise?"}, {"role": "assistant", "content": "Yeast makes gas."}],
    [{"role": "user", "content": "Sort a list of numbers"}, {"role": "assistant", "content": "Use sorted."}],
    [{"role": "system", "content": "nothing is asked"}],
    [{"role": "user", "content": "Sort a list of numbers"}, {"role": "assistant", "content": "Use sorted."}],
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_embedder(tmp_path_factory.mktemp("embedder"))


def column():
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    return pa.array(MESSAGES, kind)


def test_vectors_are_those_of_the_model_and_null_without_text(model):
    made = vectors_here(column(), "model", model)
    assert made.is_valid().to_pylist() == [True, True, False, True]
    expected, _ = embed_texts([row_text(MESSAGES[k]) for k in (0, 1)], load_model(model))
    np.testing.assert_allclose(np.array(made.take(pa.array([0, 1])).to_pylist()), expected, atol=1e-5)
    embedder = make_embedder("model", model, threads=1, spark=None)
    batch = pa.RecordBatch.from_arrays([pa.array(list("abcd")), column()], names=["text_hash", "messages"])
    (told,) = vectors_of_rows(embedder)(iter([batch]))
    assert told.column("vector").equals(embedder.embed(column()))
    assert embedder_version(embedder).startswith("model ")
    assert embedder_version(embedder) != embedder_version(replace(embedder, identity="other"))


def test_distilled_vectors_are_of_length_one_and_another_version(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    embedder = make_embedder("distilled", model, threads=1, spark=None)
    assert embedder.sample
    assert embedder.vocabulary
    small = replace(embedder, vocabulary=("bread", "code"), sample=embedder.sample[:20])
    made = small.embed(column())
    assert made.is_valid().to_pylist() == [True, True, False, True]
    lengths = np.linalg.norm(np.array(made.drop_null().to_pylist()), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    by_model = make_embedder("model", model, threads=1, spark=None)
    assert len({embedder_version(e) for e in (embedder, small, by_model)}) == 3


def test_rows_with_messages_are_embedded_in_this_process(model):
    table = pd.DataFrame(
        {"id": [1, 2, 3, 4], "labels": [["a"]] * 4, "score": [1.0, 2.0, 9.0, 2.0], "messages": MESSAGES}
    )
    strategy = {"kind": "deita", "embedding": "model", "model": model, "threshold": 0.999}
    assert select(table, 4, strategy=strategy).ids == [2, 1]
    assert select(table, 4, strategy=strategy, include=[4]).ids == [4, 1]
