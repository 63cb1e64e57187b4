"""The results as tables, each figure beside what it should be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from bench.gpu.correctness import problems
from bench.gpu.parts import Result
from bench.report import table

# Of one image: at most the MAC ratio and a tenth, of the time of the best ungated network.
_MOST_ABOVE = 1.1
# Least efficiency from so many images on, by what the network's name ends with.
_LARGE, _LEAST = 32, {"imagenet": 0.85, "cifar10": 0.8}
_LEAST_BUSY = 0.8


def told(results: Mapping[str, Result], missing: Mapping[str, str]) -> tuple[str, list[str]]:
    """All of it as text, and the aims that were missed; what was not measured misses none."""
    sections = [_machine(results), _correctness(results)]
    speeds, missed = speed(results)
    served, idle = _served(results)
    checks, errors = _sanitizer(results)
    wrong = [f"{name}: {each}" for name, result in _of(results, "correctness") for each in problems(result["plans"])]
    sections += [speeds, served, checks]
    if missing:
        sections.append(table(("not measured", "why"), [(name, why.splitlines()[0]) for name, why in missing.items()]))
    return "\n\n".join(filter(None, sections)), [*wrong, *missed, *idle, *errors]


def speed(results: Mapping[str, Result]) -> tuple[str, list[str]]:
    """A row for each plan and share of open gates, beside the fastest ungated network of the same batch."""
    cases: dict[tuple[str, int], list[Result]] = defaultdict(list)
    for prefix in ("speed", "slow rivals"):
        for _, result in _of(results, prefix):
            cases[result["network"], result["batch"]].append(result)
    rows, missed = [], []
    for (network, batch), found in cases.items():
        ungated = {name: time["in_line"] for result in found for name, time in result["ungated"].items()}
        rival = min(ungated, key=lambda name: ungated[name]) if ungated else None
        gated = [row for result in found for row in result["gated"]]
        for row in gated:
            fastest = row["in_line"] == min(other["in_line"] for other in gated if other["asked"] == row["asked"])
            ratio = row["in_line"] / ungated[rival] if rival else None
            efficiency = row["mac_ratio"] / ratio if ratio else None
            least = aim(network, batch)
            if fastest and not row["finite"]:
                missed.append(f"{network}, {batch} images, {row['asked']:.0%} open: some answers are not numbers")
            if fastest and least and efficiency is not None and efficiency < least:
                missed.append(
                    f"{network}, {batch} images, {row['asked']:.0%} open: efficiency {efficiency:.2f} < {least:.2f}"
                )
            rows.append(
                (
                    f"{network}{' *' if fastest else ''}",
                    str(batch),
                    row["plan"],
                    f"{row['open']:.0%}",
                    f"{1e6 * row['in_line']:.1f}",
                    f"{1e6 * row['alone']:.1f}",
                    f"{batch / row['in_line']:,.0f}",
                    f"{row['mac_ratio']:.3f}",
                    "" if ratio is None else f"{ratio:.3f}",
                    "" if efficiency is None else f"{efficiency:.2f}",
                    "" if least is None else f">= {least:.2f}",
                )
            )
        rows += [
            (
                network,
                str(batch),
                name,
                "ungated",
                f"{1e6 * taken:.1f}",
                "",
                f"{batch / taken:,.0f}",
                "1.000",
                "",
                "",
                "",
            )
            for name, taken in sorted(ungated.items(), key=lambda each: each[1])
        ]
    head = ("network (* fastest plan)", "batch", "plan", "open", "us", "alone, us", "images/s", "MAC ratio")
    return (table((*head, "time ratio", "efficiency", "aim"), rows) if rows else ""), missed


def aim(network: str, batch: int) -> float | None:
    """Least of the MAC ratio over the time ratio."""
    if batch == 1:
        return 1 / _MOST_ABOVE
    if batch >= _LARGE:
        return next(least for end, least in _LEAST.items() if network.endswith(end))
    return None


def estimated(rows: list[dict[str, Any]]) -> str:
    """Rows of `estimate`."""
    head = (
        "ESTIMATE",
        "batch",
        "open",
        "plan",
        "us",
        "images/s",
        "MAC ratio",
        "of itself ungated",
        "GFLOP",
        "MB",
        "launches",
    )
    return table(
        head,
        [
            (
                row["network"],
                str(row["batch"]),
                f"{row['open']:.0%}",
                row["plan"],
                f"{1e6 * row['seconds']:.0f}",
                f"{row['images_per_s']:,.0f}",
                f"{row['mac_ratio']:.3f}",
                f"{row['mac_ratio'] * row['ungated_seconds'] / row['seconds']:.2f}",
                f"{row['gflop_an_image']:.2f}",
                f"{row['mb_an_image']:.1f}",
                str(row["launches"]),
            )
            for row in rows
        ],
    )


def _machine(results: Mapping[str, Result]) -> str:
    lines = []
    for _, result in _of(results, "machine"):
        lines += [*result["devices"], ", ".join(f"{name} {of}" for name, of in result["versions"].items() if of)]
        lines += [f"{name}: {value if isinstance(value, str) else f'{value:.4g}'}" for name, value in _ceilings(result)]
    return "\n".join(lines)


def _ceilings(result: Result) -> list[tuple[str, Any]]:
    return [*result["ceilings"].items()]


def _correctness(results: Mapping[str, Result]) -> str:
    rows = []
    for name, result in _of(results, "correctness"):
        for plan, found in result["plans"].items():
            for kind, each in found.items():
                if kind == "problem":
                    rows.append((name, plan, "proof", "", "", "", "", each or "right"))
                    continue
                rows.append(
                    (
                        name,
                        plan,
                        kind,
                        str(each["images"]),
                        f"{each['equal_gates']:.3%}",
                        f"{each['equal_predictions']:.2%}",
                        f"{each['margin_difference']:.2g}",
                        each["problem"] or "right",
                    )
                )
    head = ("correctness", "plan", "of", "images", "gates equal", "predictions equal", "margins differ by", "verdict")
    return table(head, rows) if rows else ""


def _served(results: Mapping[str, Result]) -> tuple[str, list[str]]:
    rows, missed = [], []
    for name, result in _of(results, "served"):
        if why := result.get("left_out"):
            rows.append((name, "", "", "", "", why))
        loads = {load: found for load, found in result.items() if load.endswith(" clients")}
        for number, (load, found) in enumerate(loads.items()):
            busy, p99 = found["busy"], found["p99"]
            aimed = number == len(loads) - 1
            rows.append(
                (
                    name,
                    load,
                    f"{found['images_per_s']:.0f}",
                    "" if p99 is None else f"{p99:.1f}",
                    found["busy_problem"] or ("" if busy is None else f"{busy:.0%}"),
                    f">= {_LEAST_BUSY:.0%}" if aimed else "",
                )
            )
            if aimed and busy is not None and busy < _LEAST_BUSY:
                missed.append(f"{name}, {load}: the GPU is busy {busy:.0%} < {_LEAST_BUSY:.0%}")
            if set(found["counts"]) != {"200"}:
                missed.append(f"{name}, {load}: not all were answered: {found['counts']}")
    return (table(("served", "load", "images/s", "p99 ms", "GPU busy", "aim"), rows) if rows else ""), missed


def _sanitizer(results: Mapping[str, Result]) -> tuple[str, list[str]]:
    rows, missed = [], []
    for name, result in _of(results, "sanitizer"):
        rows.append((name, result.get("left_out") or f"{result['errors']} errors", "0 errors"))
        if "left_out" not in result and result["errors"] != 0:
            missed.append(f"{name}: {result['errors']} errors")
    return (table(("sanitizer", "found", "aim"), rows) if rows else ""), missed


def _of(results: Mapping[str, Result], prefix: str) -> list[tuple[str, Result]]:
    return [(name, result) for name, result in results.items() if name.startswith(prefix)]
