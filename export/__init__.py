"""From a checkpoint to an artifact the service can run: real control flow, no noise, and a proof that it is equal."""

import artifact  # noqa: F401 (before any runtime; see there)
