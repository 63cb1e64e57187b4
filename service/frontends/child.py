"""What a front end runs: python -m service.frontends.child SOCKET, with what it has to know as JSON on its input."""

from __future__ import annotations

import json
import os
import socket
import sys

from service.access.keys import KeyFileError
from service.engine.operating_system import end_with_parent
from service.serving import end_at_once_on_signals, serve
from service.settings import Settings


def main() -> int:
    """Serve; return the exit status."""
    end_with_parent()
    end_at_once_on_signals()
    order = sys.stdin.read()
    # The process above may have ended before this one could ask to end with it.
    if not order or os.getppid() != (told := json.loads(order))["parent"]:
        return 1
    from service.frontends.member import Member  # what it imports takes long

    with socket.socket(fileno=int(sys.argv[1])) as connection:
        models = None if told["models"] is None else [tuple(model) for model in told["models"]]
        member = Member(told["number"], told["count"], connection, models)
        try:
            return serve(Settings(**told["settings"]), member)
        except KeyFileError as error:
            print("error:", " ".join(str(error).split()), file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
