"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# a first call compiles, and the machine is shared: time limits on examples would only make tests flaky
settings.register_profile("mig", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "mig"))
