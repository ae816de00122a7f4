"""What all models in executors share: the check of published weights, counts of loads and their seconds, silenced
progress bars, devices and threads, batches of about equal work.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mig_spark.errors import DependencyError

#: seconds that each model load of this process took, imports included
_LOADS: list[float] = []
#: sha256 of files that this process has read, by path, size and time of modification
_HASHES: dict[tuple[str, int, int], str] = {}


def check_weights(file: Path, sha256: str, *, advice: str) -> None:
    """Check that a file of weights is the published one, by its sha256; each is read once a process.

    Args:
        file: the weights.
        sha256: of the published file, in hex.
        advice: what to do where it is not, for the error message.

    Raises:
        DependencyError: the file is not there, or has other bytes.
    """
    try:
        stat = file.stat()
        key = str(file), stat.st_size, stat.st_mtime_ns
        if key not in _HASHES:
            with file.open("rb") as stream:
                digest = hashlib.sha256()
                while piece := stream.read(1 << 20):
                    digest.update(piece)
            _HASHES[key] = digest.hexdigest()
    except OSError as e:
        raise DependencyError(f"the weights {file} cannot be read ({e.strerror or e}): {advice}") from None
    if _HASHES[key] != sha256:
        raise DependencyError(
            f"the weights {file} are not the published ones (sha256 {_HASHES[key]}, published {sha256}): {advice}"
        )


def loaded_models() -> int:
    """How many models this process has loaded so far."""
    return len(_LOADS)


def seconds_loading() -> float:
    """How long this process has spent on loading models, imports included."""
    return sum(_LOADS)


def record_load(seconds: float) -> None:
    """Count a model that was loaded."""
    _LOADS.append(seconds)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars, load reports and import-time warnings within; the user's settings are restored."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.utils import logging as hf_logging

        level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
        hf_logging.set_verbosity_error()
        hf_logging.disable_progress_bar()
        try:
            yield
        finally:
            hf_logging.set_verbosity(level)
            if bars:
                hf_logging.enable_progress_bar()


def set_threads(threads: int | None) -> None:
    """Limit torch to one task's share of the cores, so that Python workers do not compete."""
    import torch

    if threads and torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def pick_device(device: str) -> str:
    """The device to use: for `auto` the first GPU where there is one, else the CPU."""
    import torch

    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 numbers in hardware, as /proc/cpuinfo says; False where there is
    no such file, as on other systems than Linux."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))


def token_batches(lengths: npt.NDArray[np.int64], batch_tokens: int) -> Iterator[npt.NDArray[np.intp]]:
    """Row numbers of each batch, longest texts first: where memory is too small, the first batch fails and not a later
    one.

    Args:
        lengths: int (n,): tokens of each row.
        batch_tokens: tokens a batch, padding included; a longer row is a batch by itself.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        yield order[start : start + size]
        start += size
