"""What a tagger or scorer is to the rest of the system, whatever its kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mig_spark.kernels.annotation.annotators import Step, asks

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: kernels that go over a pool at thousands of rows a second
_QUICK = frozenset({"valid_labels", "heuristic", "distilled"})


@dataclass(frozen=True)
class Annotator:
    """A tagger or scorer, ready to run.

    Attributes:
        name: kind and model, as the annotations table shows it.
        version: changes with everything that can change what it says.
        makes: the columns that it makes, `TAGS` or `SCORES`.
        reads_given: it reads what the pool brought, so its answer belongs to the row's content and `given` together.
        flags: the flags that it may set.
        columns: adds its columns by Spark alone; None where `step` does it.
        step: the kernel that executors run.
        may_fail: a row may come back without an answer, with the reason in its column of `ERRORS`.
        max_tasks: at most so many tasks ask at a time; None: as many as there are cores.
    """

    name: str
    version: str
    makes: tuple[str, ...]
    reads_given: bool = False
    flags: tuple[str, ...] = ()
    columns: Callable[[DataFrame], DataFrame] | None = None
    step: Step | None = None
    may_fail: bool = False
    max_tasks: int | None = None

    @property
    def paid(self) -> bool:
        """Whether it asks an endpoint, so that every answer costs money."""
        return self.step is not None and asks(self.step)

    @property
    def slow(self) -> bool:
        """Whether so much work is in a row that it is committed in chunks."""
        return self.step is not None and self.step[0] not in _QUICK


def version_of(**parts: Any) -> str:
    """A version that changes with every part."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
