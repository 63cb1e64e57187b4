"""How much is tried: a set number of the same cases in every test run, and other cases, many more, in `make fuzz`."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: other tests and servers share the processor. Cases are made of large files, which is known to be slow.
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck)}

settings.register_profile("tests", max_examples=500, derandomize=True, database=None, **_COMMON)
settings.register_profile("fuzz", max_examples=20_000, print_blob=True, **_COMMON)
settings.load_profile("tests")
