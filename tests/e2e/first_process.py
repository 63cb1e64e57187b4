"""`python -m service` as the first process of a container, to which processes come whose parents have ended."""

from __future__ import annotations

import ctypes
import sys

from service.__main__ import main
from service.serving import end_at_once_on_signals

_PR_SET_CHILD_SUBREAPER = 36  # of prctl(2)

if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    end_at_once_on_signals()
    sys.exit(main())
