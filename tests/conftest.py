"""Settings of all tests."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from hypothesis import settings

# numba's cache does not see that a function from another module has changed, and would let a caller pass that cannot be
# compiled any more: so it is one cache for each state of the kernels
_KERNELS = Path(__file__).parents[1] / "mig_spark" / "kernels"
_STATE = hashlib.sha256(b"".join(f.read_bytes() for f in sorted(_KERNELS.rglob("*.py")))).hexdigest()[:16]
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"mig-spark-numba-{os.getuid()}-{_STATE}"))

# a first call compiles, and the machine is shared: time limits on examples would only make tests flaky
settings.register_profile("mig", deadline=None)
settings.load_profile("mig")
