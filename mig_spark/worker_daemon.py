"""The process that Spark forks Python workers from in a local session, with all imported that they need.

Each worker would import numpy, pandas, pyarrow, numba and the kernels by itself, some seconds of a core; a run has
several. Spark names this module by `spark.python.daemon.module` (`lakehouse/session.py`).

A fork copies only the thread that calls it, so none may be there but one: Spark's own daemon imports nothing for that
reason. Here that is looked at, and where a library has started a thread Spark's daemon takes the place of this one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def threads() -> int:
    """Threads of this process, those of libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


def run() -> None:
    """Import, then fork workers as Spark asks for them, until it ends this process."""
    # pyarrow brings an allocator whose thread starts when it is loaded
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    import pyspark.worker  # noqa: F401
    from pyspark import daemon

    import mig_spark.udfs  # noqa: F401

    if threads() > 1:
        os.execv(sys.executable, [sys.executable, "-m", "pyspark.daemon", *sys.argv[1:]])  # noqa: S606 - itself
    daemon.manager()


if __name__ == "__main__":
    run()
