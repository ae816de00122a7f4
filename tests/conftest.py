"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# a first call compiles, and the machine is shared: time limits on examples would only make tests flaky
settings.register_profile("mig", deadline=None)
settings.load_profile("mig")
