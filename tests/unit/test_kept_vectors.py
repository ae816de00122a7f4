"""Vectors of labels that are kept by model and labels: they are what was computed, and nothing that fails matters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation import kept_vectors as module
from mig_spark.kernels.annotation.kept_vectors import MOST_KEPT, MOST_LABELS, kept_vectors


class Model:
    """A folder that stands for a model, and how often its vectors were computed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, 0
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_bytes(b"1")

    def vectors(self, labels: list[str], **settings: Any) -> np.ndarray:
        def make() -> np.ndarray:
            self.made += 1
            return np.random.default_rng(len("".join(labels))).normal(size=(len(labels), 3)).astype(np.float32)

        return kept_vectors(str(self.folder), labels, make, **settings)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mig-spark"


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return Model(tmp_path / "model")


def test_they_are_computed_once_and_the_same_to_the_last_bit(cache: Path, model: Model) -> None:
    first = model.vectors(["a", "b"], max_tokens=16)
    again = model.vectors(["a", "b"], max_tokens=16)
    assert (again == first).all()
    assert again.dtype == np.float32
    assert model.made == 1
    assert [f.suffix for f in cache.iterdir()] == [".npy"], "nothing half written is left"


def test_other_labels_settings_or_weights_are_computed(cache: Path, model: Model) -> None:
    model.vectors(["a", "b"], max_tokens=16)
    model.vectors(["b", "a"], max_tokens=16)
    model.vectors(["a", "b"], max_tokens=32)
    (model.folder / "weights").write_bytes(b"2")
    model.vectors(["a", "b"], max_tokens=16)
    assert model.made == 4


def test_other_versions_of_libraries_are_computed(cache: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    model.vectors(["a"])
    monkeypatch.setattr(module.importlib.metadata, "version", lambda name: f"{name} 99")
    model.vectors(["a"])
    assert model.made == 2


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array"])
def test_a_damaged_file_is_made_again(cache: Path, model: Model, damage: bytes) -> None:
    first = model.vectors(["a"])
    [file] = cache.iterdir()
    file.write_bytes(damage)
    assert (model.vectors(["a"]) == first).all()
    assert (model.vectors(["a"]) == first).all()
    assert model.made == 2


def test_an_array_of_another_shape_is_made_again(cache: Path, model: Model) -> None:
    model.vectors(["a"])
    [file] = cache.iterdir()
    np.save(file, np.zeros((2, 3), np.float32))
    assert model.vectors(["a"]).shape == (1, 3)
    assert model.made == 2


def test_those_used_last_stay(cache: Path, model: Model) -> None:
    for k in range(MOST_KEPT):
        model.vectors([f"label {k}"])
        [new] = set(cache.iterdir()) - {f for f in cache.iterdir() if f.stat().st_mtime < 1e6}
        os.utime(new, (k, k))
    model.vectors(["label 0"])  # used again
    model.vectors(["one more"])
    assert len(list(cache.iterdir())) == MOST_KEPT
    made = model.made
    model.vectors(["label 0"])
    assert model.made == made
    model.vectors(["label 1"])
    assert model.made == made + 1


def test_where_nothing_can_be_kept_they_are_computed(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "user_cache", lambda: Path("/proc/no-such-folder"))
    assert model.vectors(["a"]).shape == (1, 3)
    assert model.vectors(["a"]).shape == (1, 3)
    assert model.made == 2


def test_very_many_labels_and_models_of_a_hub_are_not_kept(cache: Path, model: Model) -> None:
    model.vectors([str(k) for k in range(MOST_LABELS + 1)])
    model.vectors([])
    kept_vectors("some-org/some-model", ["a"], lambda: np.zeros((1, 3), np.float32))
    assert not cache.exists() or not list(cache.iterdir())


def test_a_model_that_is_not_there_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="no model at"):
        kept_vectors(str(tmp_path / "nowhere"), ["a"], lambda: np.zeros((1, 3), np.float32))
