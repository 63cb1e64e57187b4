"""The HTTP service: images in, predictions and inference graphs out."""

import artifact  # noqa: F401 (before any runtime; see there)
