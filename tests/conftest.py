"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# a first call compiles, and the machine is shared: time limits on examples would only make tests flaky
settings.register_profile("mig", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "mig"))
