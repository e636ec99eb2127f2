"""Settings for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A machine that is busy must not fail a property: no time limit per example, none on making them. Failures print how to repeat them.
settings.register_profile("noisy-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("noisy-machine")
