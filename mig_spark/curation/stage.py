"""The type of a stage; `curation/stages.py` has one record of it for each stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.config import Config
from mig_spark.contracts import Table

if TYPE_CHECKING:
    from mig_spark.lakehouse.runs import Run
    from mig_spark.lakehouse.tables import Store


def _no_file(_config: Config) -> Sequence[str]:
    return ()


def _always(_config: Config) -> bool:
    return True


@dataclass(frozen=True)
class Stage:
    """One stage of the flow.

    Attributes:
        name: its name: the command, the job, the row of the table `stages`.
        help: what it does, in one line.
        run: does the work; it gets the store pinned to the table versions in the stage's key, and the run's record.
        reads: tables that it reads, at the versions in its key. REJECTED is not among them: four stages own a part of
            it each.
        writes: tables that it writes under a config.
        settings: the parts of the config that can change its result; they go into its key.
        named: files and tables beside the pool that the config names for it; facts of them go into its key.
        models: whether the versions of the config's tagger and scorer are a part of its key.
        tells: names of the entries that it adds to the run's `inputs`.
        file: the name of the file or folder that it makes in `output.path`; None where it makes none.
        restore: writes that file again from the tables, where somebody removed it; None: the stage is done again.
        fits: whether the file that is there is of the form that the config says; None: it always is.
        of_all: it describes the whole run, so it is done again whenever another stage was.
        enabled: whether the config includes it in the flow.
        forget: removes what it has written, where the config leaves it out; done before a run that annotates.
    """

    name: str
    help: str
    run: Callable[[Store, Run], None]
    reads: tuple[Table, ...]
    writes: Callable[[Config], tuple[Table, ...]]
    settings: Callable[[Config], dict[str, Any]]
    named: Callable[[Config], Sequence[str]] = _no_file
    models: bool = False
    tells: tuple[str, ...] = ()
    file: str | None = None
    restore: Callable[[Store, str], Any] | None = None
    fits: Callable[[Store, str], bool] | None = None
    of_all: bool = False
    enabled: Callable[[Config], bool] = _always
    forget: Callable[[Store], None] | None = None

    def path(self, config: Config) -> str | None:
        """Where its file goes; None where it makes none, or only a catalog is configured."""
        base = config.output.path
        return None if self.file is None or not base else f"{base.rstrip('/')}/{self.file}"
