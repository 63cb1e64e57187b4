"""`python -m service`, which soon ends a front end that hangs."""

from __future__ import annotations

import sys

from service.__main__ import main
from service.frontends import parent
from service.serving import end_at_once_on_signals

if __name__ == "__main__":
    parent.HUNG_S = 5.0
    end_at_once_on_signals()
    sys.exit(main())
