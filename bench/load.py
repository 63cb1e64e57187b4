"""Load on an HTTP server, in a closed loop of clients or an open loop of random arrivals.

    python -m bench.load URL --images DIR --clients 16
    python -m bench.load URL --images DIR --rate 200

It shares the processor with the server it measures, so it is built to be light, and reports its own cost and lateness.
Run it in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.load_result import REFUSED, Result
from bench.load_run import Check, Run, poisson_arrivals

__all__ = ["Check", "Result", "closed_loop", "open_loop"]


def closed_loop(
    url: str,
    bodies: Sequence[bytes],
    headers: Mapping[str, str],
    clients: int,
    seconds: float,
    warmup_s: float,
    timeout_s: float,
    check: Check | None = None,
    check_every: int = 10,
) -> Result:
    """Post the bodies in turn from `clients` connections, each sending the next once its answer has come.

    Args:
        url: http://host[:port]/path.
        bodies: at least one.
        headers: to send with every body, beyond those that HTTP needs.
        clients: connections.
        seconds: length of the measured window.
        warmup_s: the same load before it, which is not measured.
        timeout_s: after which a request has failed and its connection is given up.
        check: tells from the index of the body whether the body of a 200 answer is right. It is called after the load,
            so that it takes no time from the server.
        check_every: of the requests, how many are there for each that is checked.

    Raises:
        ValueError: the URL is not one of HTTP.
        OSError: its host is unknown.
    """
    return Run(url, bodies, headers, seconds, warmup_s, timeout_s, check, check_every).closed(clients)


def open_loop(
    url: str,
    bodies: Sequence[bytes],
    headers: Mapping[str, str],
    rate_per_s: float,
    seconds: float,
    warmup_s: float,
    timeout_s: float,
    seed: int,
    check: Check | None = None,
    check_every: int = 10,
) -> Result:
    """Post the bodies in turn at the times of a Poisson process, however slowly the server answers.

    Latency counts from the scheduled arrival, so the waiting that a slow server causes is in it. After the last
    arrival, those still outstanding get the rest of their `timeout_s`.

    Args:
        rate_per_s: mean arrivals per second.
        timeout_s: after its scheduled arrival, when a request has failed and its connection is given up.
        seed: of the arrival times.

    The other arguments and the errors are those of `closed_loop`.
    """
    arrivals_s = poisson_arrivals(rate_per_s, warmup_s + seconds, seed)
    return Run(url, bodies, headers, seconds, warmup_s, timeout_s, check, check_every).open(arrivals_s)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status: 0 if every answer was a 200 or a refusal."""
    arguments = _arguments(argv)
    paths = sorted(path for path in arguments.images.rglob("*") if path.is_file())
    if not paths:
        print(f"error: no files in {arguments.images}", file=sys.stderr)
        return 2
    bodies = [path.read_bytes() for path in paths[: arguments.most_images]]
    headers = {"Content-Type": mimetypes.guess_type(paths[0].name)[0] or "application/octet-stream"}
    timing = (arguments.seconds, arguments.warmup, arguments.timeout)
    try:
        if arguments.rate is None:
            result = closed_loop(arguments.url, bodies, headers, arguments.clients, *timing)
        else:
            result = open_loop(arguments.url, bodies, headers, arguments.rate, *timing, arguments.seed)
    except (ValueError, OSError) as error:
        print("error:", error, file=sys.stderr)
        return 2
    for line in _table(result):
        print(line)
    ok = set(result.counts) <= {200, REFUSED} and 200 in result.counts
    print(json.dumps({"ok": ok, "url": arguments.url} | result.summary()))
    return 0 if ok else 1


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Put load on an HTTP server.")
    parser.add_argument("url", help="where images are posted to, as raw bodies")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="files to post, all of one type")
    parser.add_argument(
        "--most-images", type=int, default=1000, metavar="N", help="files of them to post (default: %(default)s)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--clients", type=int, default=1, help="of a closed loop (default: %(default)s)")
    how.add_argument(
        "--rate", type=float, metavar="PER_S", help="random arrivals per second, an open loop (default: a closed one)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="to measure (default: %(default)g)")
    parser.add_argument("--warmup", type=float, default=2.0, metavar="S", help="before that (default: %(default)g)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="S", help="of a request (default: %(default)g)")
    parser.add_argument("--seed", type=int, default=0, help="of the arrivals (default: %(default)s)")
    return parser.parse_args(argv)


def _table(result: Result) -> list[str]:
    lines = [f"{result.images_per_s:.1f} images/s over {result.seconds:g} s"]
    for status, count in result.counts.items():
        cells = [f"{name} {value:8.2f} ms" for name, value in result.percentiles_ms(status).items() if value]
        lines.append("   ".join([f"{status or 'failed':>6}  {count:7d} requests", *cells]))
    if result.refusals_with_retry_after is not None:
        lines.append(f"{result.refusals_with_retry_after:.0%} of the refusals say when to come back")
    lag_ms = ", ".join(f"{name} {value:.2f} ms" for name, value in result.lag_ms.items() if value is not None)
    lines.append(f"generator: {result.cpu_us_per_request:.0f} µs of processor time for a request; behind by {lag_ms}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
