"""The service, whose process of a device is one that fails when it is told to."""

from __future__ import annotations

import os
import sys

from service.__main__ import main
from service.images import workers

DEVICE_MODULE = "TEST_GPU_DEVICE_MODULE"
"""The environment variable that names the module of that process."""

if __name__ == "__main__":
    workers.DEVICE_MODULE = os.environ[DEVICE_MODULE]
    sys.exit(main())
