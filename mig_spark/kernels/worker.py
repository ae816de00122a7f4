"""What Spark's Python workers are: what they are started as, and shorter garbage collection in them.

A worker runs a full collection after every task, which looks at every object of every loaded module: with numba that
takes 0.07 s, as long as many a task. Objects that the first collection leaves are set aside (`gc.freeze`), so that
later ones do not look at them; they are still freed when their last reference goes.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

#: The module that workers of a local session are forked from; and a variable of its environment where they run models
#: by torch: a file that says whether importing was tried (`lakehouse/model_workers.py`).
DAEMON, MODELS = "mig_spark.worker_daemon", "MIG_SPARK_MODELS"

#: How many modules were loaded when objects were set aside last.
_LOADED = [0]
#: What a process that runs Python functions for Spark is started as.
_WORKERS = ("pyspark.daemon", "pyspark.worker", DAEMON)


def set_modules_aside() -> None:
    """From now on, each full collection sets aside what it leaves, where modules were loaded since the last time.

    Only in a process that Spark started for Python functions; elsewhere nothing changes.
    """
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name in _WORKERS and _after not in gc.callbacks:
        gc.callbacks.append(_after)


def _after(phase: str, info: dict[str, Any]) -> None:
    if phase == "stop" and info["generation"] == 2 and len(sys.modules) != _LOADED[0]:
        _LOADED[0] = len(sys.modules)
        gc.freeze()
