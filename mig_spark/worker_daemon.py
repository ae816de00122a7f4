"""The process that Spark forks Python workers from in a local session, with all imported that they need.

Each worker would import numpy, pandas, pyarrow, numba and the kernels by itself, some seconds of a core; a run has
several. Spark names this module by `spark.python.daemon.module` (`lakehouse/session.py`). Workers that run models by
torch are forked from a second such process (`lakehouse/model_workers.py`), which imports after its first fork: until
that, Spark starts no other worker. That is tried once a session: where it fails, or takes so long that Spark gives the
process up (a minute), the next one leaves models to each worker.

A fork copies only the thread that calls it, so none may be there but one: Spark's own daemon imports nothing for that
reason. Here that is looked at, and where a library has started a thread Spark's daemon takes the place of this one.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from mig_spark.kernels.worker import MODELS

#: Whether `import_models` has been called in this process.
_IMPORTED: list[bool] = []


def threads() -> int:
    """Threads of this process, those of libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


def any_gpu() -> bool:
    """Whether this machine has a GPU of NVIDIA's or AMD's."""
    return any(Path("/dev").glob("nvidia*")) or Path("/dev/kfd").exists()


def import_kernels() -> None:
    """Import what every worker needs."""
    # pyarrow brings an allocator whose thread starts when it is loaded
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    import pyspark.worker  # noqa: F401

    import mig_spark.udfs  # noqa: F401


def import_models() -> None:
    """Import what every worker needs, and sentence-transformers with torch, the first time that this is called.

    What is printed meanwhile goes to stderr, since Spark reads stdout. If the library is not there or broken, nothing
    is said here: the function that needs the model says it. If a library has started a thread, this process must not
    fork again, and ends: Spark then starts another one, which does not import.
    """
    if _IMPORTED:
        return
    _IMPORTED.append(True)
    import_kernels()
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(Exception):
        from mig_spark.kernels.annotation.models import quiet

        with quiet():
            import sentence_transformers  # noqa: F401
    if threads() > 1:
        os._exit(1)


def first_of_session() -> bool:
    """Whether this process is the one of its Spark session that imports torch before workers are forked from it: the
    first that is started with the variable `MODELS`. It removes the file that `MODELS` names, which tells later ones
    that importing was tried."""
    try:
        Path(os.environ[MODELS]).unlink()
    except (KeyError, OSError):
        return False
    return True


def run() -> None:
    """Import, then fork workers as Spark asks for them, until it ends this process."""
    from pyspark import daemon

    # with more than one thread a task, numpy starts threads; and a GPU's driver does not survive a fork
    if first_of_session() and os.environ.get("OMP_NUM_THREADS") == "1" and not any_gpu():
        own = os.getpid()
        # a worker inherits this, and may fork too
        os.register_at_fork(after_in_parent=lambda: import_models() if os.getpid() == own else None)
    else:
        import_kernels()
    if threads() > 1:
        os.execv(sys.executable, [sys.executable, "-m", "pyspark.daemon", *sys.argv[1:]])  # noqa: S606 - itself
    daemon.manager()


if __name__ == "__main__":
    run()
