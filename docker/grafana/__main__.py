"""`python -m docker.grafana`: writes both dashboards to docker/grafana/dashboards/."""

from __future__ import annotations

from pathlib import Path

from docker.grafana import adaptivity, operation
from docker.grafana.page import rendered

DASHBOARDS = Path(__file__).parent / "dashboards"
PAGES = {"operation": operation.build, "adaptivity": adaptivity.build}


def main() -> None:
    """Write what the code says over what is there."""
    for name, build in PAGES.items():
        (DASHBOARDS / f"{name}.json").write_text(rendered(build()), encoding="utf-8")


if __name__ == "__main__":
    main()
