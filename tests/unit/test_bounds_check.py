"""The compiled kernels once more with every index checked: an access out of bounds is an error, not a wrong number."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KERNEL_TESTS = [
    "test_greedy.py", "test_exact_gain.py", "test_audit.py", "test_selection_limits.py", "test_objective.py",
    "test_tangents.py",
]  # fmt: skip

OUT_OF_BOUNDS = """
import numpy as np
from mig_spark.kernels.selection.heap import pop
pop(np.zeros(1), np.zeros(1, np.int64), np.zeros(1, np.int32), 9)
"""


@pytest.mark.faults
def test_no_kernel_reads_or_writes_out_of_bounds(tmp_path):
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    seen = subprocess.run([sys.executable, "-c", OUT_OF_BOUNDS], env=env, capture_output=True, text=True, check=False)
    assert "IndexError" in seen.stderr, "indices are not checked: this test would show nothing"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *(str(HERE / t) for t in KERNEL_TESTS),
    ]
    done = subprocess.run(command, cwd=HERE.parents[1], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
