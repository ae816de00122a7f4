"""Folders of the spill, the files that paid answers are written through to: one folder an output, in it one a run, in
that one a chunk.

`annotate.spill_path` belongs to the user, who may keep anything there, and several outputs may share it. So all files
are in one subfolder, named by the output, with a marker file that says which output it belongs to. Only files with the
exact names that are written here are removed, and folders that are then empty.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path

from mig_spark.config import AnnotateConfig, OutputConfig
from mig_spark.errors import InputError
from mig_spark.kernels.annotation.folders import local_folder
from mig_spark.kernels.annotation.spill import ASIDE, CHUNK, FILE, spill_files
from mig_spark.lakehouse.storage import SCHEME, Files

logger = logging.getLogger(__name__)

_NAME = "annotate-spill"
MARKER = "mig-spark-spill.json"


@dataclass(frozen=True)
class SpillFolder:
    """The spill folders of one run.

    Attributes:
        own: the output's folder, which driver and executors write to as plain files; None: answers are not spilled.
        run: the name of this run's folder in it; a run that is started again under the same id gets a new one.
        identity: what the marker file says: where the output's tables are.
        earlier: chunk folders that runs which died have left; their answers are used.
        gone: folders with answers that could not be used and were put aside.
    """

    own: Path | None
    run: str
    identity: str = ""
    earlier: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    @staticmethod
    def open(output: OutputConfig, config: AnnotateConfig, run_id: str, *, files: Files | None = None) -> SpillFolder:
        """Find the folder and what is in it; nothing is written. A warning where answers cannot be written through.

        Args:
            files: say whether a path of `output` without a scheme is on HDFS, say; None: it is the operating system's.

        Raises:
            InputError: the folder cannot be read, or something else has its name.
        """
        root = local_folder(config.spill_path or output.path)
        if files is not None and output.path and not config.spill_path and not SCHEME.match(output.path):
            root = files.os_path(output.path)
        if root is None or (files is not None and not files.tasks_open):
            logger.warning(
                "annotate: paid answers are kept in memory until their chunk is committed, since %s is no folder that "
                "executors can write files in: a task or run that dies pays for its %d-row chunk again. Set "
                "annotate.spill_path to a shared folder (a Volume, EFS, NFS) to keep them",
                config.spill_path or output.path or "the catalog",
                config.chunk_rows,
            )
            return SpillFolder(None, "")
        identity = output_identity(output)
        own = Path(root) / f"{_NAME}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
        try:
            _see_that_it_is_ours(own, identity)
            chunks = [*_chunks(own), *_chunks_of_old_versions(Path(root), shared=config.spill_path is not None)]
            gone = _folders(own / ASIDE)
        except OSError as e:
            raise InputError(f"cannot look into the folder of paid answers {own}: {e.strerror or e}") from None
        run = f"{run_id}-{uuid.uuid4().hex[:8]}"
        return SpillFolder(own, run, identity, tuple(map(str, chunks)), tuple(map(str, gone)))

    def chunk(self, number: int) -> str | None:
        """The folder of a chunk.

        Raises:
            InputError: the output's own folder cannot be made.
        """
        if self.own is None:
            return None
        marker = self.own / MARKER
        try:
            if not _is_written(marker):
                self.own.mkdir(parents=True, exist_ok=True)
                marker.write_text(json.dumps({"of": "mig-spark", "output": self.identity}), encoding="utf-8")
        except OSError as e:
            raise InputError(
                f"cannot write paid answers to {self.own}: {e.strerror or e}; give the job leave to write there, or "
                "set annotate.spill_path to another folder"
            ) from None
        return str(self._chunk(self.own, number))

    @property
    def aside(self) -> str | None:
        """The folder for answers of runs that died which cannot be used: people may look at them."""
        return None if self.own is None else str(self.own / ASIDE / self.run)

    def remove_chunk(self, number: int) -> None:
        """Remove the answers of a chunk that has been committed."""
        if self.own is not None:
            _remove(self._chunk(self.own, number), 2)

    def remove_earlier(self) -> None:
        """Remove what earlier runs have left, once every row has been annotated or tried; and the folder, if empty."""
        if self.own is None:
            return
        for chunk in map(Path, self.earlier):
            # where version 0.1 wrote into the user's folder itself, nothing tells whose answers they are
            if chunk.parents[1] == self.own:
                _remove(chunk, 2)
            elif chunk.parents[1] == self.own.parent / _NAME:
                _remove(chunk, 3)
        if _names(self.own) == [MARKER]:
            with contextlib.suppress(OSError):
                (self.own / MARKER).unlink()
                self.own.rmdir()

    def _chunk(self, own: Path, number: int) -> Path:
        return own / self.run / f"{number:06d}"


def output_identity(output: OutputConfig) -> str:
    """What tells an output from any other: where its tables are."""
    if output.database:
        return f"{output.catalog or ''}.{output.database}".lower()
    return local_folder(output.path) or str(output.path).rstrip("/")


def _see_that_it_is_ours(own: Path, identity: str) -> None:
    names = _names(own)
    # a disk was full, or a run died, when the marker was to be written
    if not names or (names == [MARKER] and not _is_written(own / MARKER)):
        return
    whose = None
    with contextlib.suppress(OSError, ValueError):
        whose = json.loads((own / MARKER).read_text(encoding="utf-8"))
    if whose != {"of": "mig-spark", "output": identity}:
        raise InputError(
            f"{own} is to hold this output's paid answers, and something else is in it (no {MARKER} that names this "
            "output): move it away, or set annotate.spill_path to another folder"
        )


def _is_written(marker: Path) -> bool:
    return marker.exists() and (not marker.is_file() or marker.stat().st_size > 0)


def _chunks(folder: Path) -> list[Path]:
    """The folders of chunks that runs have left in a folder."""
    runs = [run for run in _folders(folder) if run.name != ASIDE]
    return [chunk for run in runs for chunk in _folders(run) if CHUNK.fullmatch(chunk.name) and spill_files(chunk)]


def _chunks_of_old_versions(root: Path, *, shared: bool) -> list[Path]:
    """What version 0.1 has left: in `annotate-spill` of the output, or right in `spill_path`, among other things."""
    if not shared:
        return _chunks(root / _NAME)
    found = [chunk for run in _folders(root) if not run.name.startswith(_NAME) for chunk in _chunks_alone(run)]
    if found:
        logger.warning(
            "annotate: answers that an older version has left in %s are read and not removed, since nothing tells "
            "whose they are: remove %s when nobody needs them",
            root,
            ", ".join(sorted({chunk.parent.name for chunk in found})),
        )
    return found


def _chunks_alone(run: Path) -> list[Path]:
    """The chunks of a folder that holds chunks and nothing else."""
    chunks = [chunk for chunk in _folders(run) if CHUNK.fullmatch(chunk.name)]
    alone = len(chunks) == len(_names(run)) and all(FILE.fullmatch(name) for c in chunks for name in _names(c))
    return [chunk for chunk in chunks if spill_files(chunk)] if alone else []


def _remove(chunk: Path, folders: int) -> None:
    """Remove our files in the folder of a chunk, then, where they are empty, so many folders from it upwards."""
    try:
        for file in spill_files(chunk):
            file.unlink(missing_ok=True)
    except OSError as e:
        logger.warning(
            "annotate: cannot remove the answers in %s, which are not needed any more: %s", chunk, e.strerror
        )
    for folder in (chunk, *chunk.parents)[:folders]:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _folders(folder: Path) -> list[Path]:
    return [entry for name in _names(folder) if (entry := folder / name).is_dir() and not entry.is_symlink()]


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
