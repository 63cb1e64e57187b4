from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from artifact import cores
from artifact.cores import usable_cores

CORES = 8
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
Machine = Callable[..., Path]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Writes the files that tell of control groups on a machine with eight cores; returns the folder they lie in."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)

    def make(own: str, mounts: str, files: dict[str, str]) -> Path:
        for name, text in {"proc/self/cgroup": own, "proc/self/mountinfo": mounts, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return make


def _v1(folder: str, quota: str, period: str = "100000\n") -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}


@pytest.mark.parametrize(
    ("limit", "usable"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("1000 100000\n", 1),
        ("1600000 100000\n", 8),
    ],
)
def test_quota_of_a_container_counts_rounded_up(machine: Machine, limit: str, usable: int) -> None:
    assert usable_cores(machine("0::/\n", V2, {"sys/fs/cgroup/cpu.max": limit})) == usable


@pytest.mark.parametrize(
    ("limits", "usable"),
    [
        ({"system.slice/web.service": "300000 100000"}, 3),
        ({"system.slice/web.service": "max 100000", "system.slice": "200000 100000"}, 2),
        ({"system.slice/web.service": "300000 100000", "system.slice": "500000 100000"}, 3),
        ({"system.slice/web.service": "max 100000", "system.slice": "max 100000"}, 8),
        ({"system.slice/other.service": "100000 100000", "user.slice": "100000 100000"}, 8),
        ({"system.slice/web.service/below": "100000 100000"}, 8),
    ],
)
def test_smallest_quota_of_the_group_and_those_around_it_counts(
    machine: Machine, limits: dict[str, str], usable: int
) -> None:
    files = {f"sys/fs/cgroup/{group}/cpu.max": limit for group, limit in limits.items()}
    assert usable_cores(machine("0::/system.slice/web.service\n", V2, files)) == usable


@pytest.mark.parametrize(("quota", "usable"), [("-1\n", 8), ("200000\n", 2), ("250000\n", 3)])
@pytest.mark.parametrize("group", ["/docker", "/docker/abc"])
def test_quota_of_version_1_counts_in_the_group_and_around_it(
    machine: Machine, group: str, quota: str, usable: int
) -> None:
    own = "5:memory:/elsewhere\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/elsewhere\n"
    files = _v1("sys/fs/cgroup/cpu,cpuacct/docker/abc", "-1\n") | _v1(f"sys/fs/cgroup/cpu,cpuacct{group}", quota)
    assert usable_cores(machine(own, V1, files)) == usable


@pytest.mark.parametrize("top", ["/docker/abc", "/docker", "/docker/other", "/.."])
def test_group_is_found_where_only_a_part_of_the_hierarchy_is_mounted(machine: Machine, top: str) -> None:
    mounts = V1.replace(" / ", f" {top} ")
    where = "sys/fs/cgroup/cpu,cpuacct" + ("/abc" if top == "/docker" else "")
    assert usable_cores(machine("4:cpu,cpuacct:/docker/abc\n", mounts, _v1(where, "300000\n"))) == 3


def test_mount_of_a_group_that_is_not_around_the_process_is_left_alone(machine: Machine) -> None:
    other = "40 23 0:26 /other /mnt/other rw - cgroup2 cgroup2 rw\n"
    files = {"mnt/other/cpu.max": "100000 100000\n", "sys/fs/cgroup/own/cpu.max": "400000 100000\n"}
    assert usable_cores(machine("0::/own\n", other + V2, files)) == 4


def test_group_outside_the_namespace_is_not_looked_for_above_the_mount(machine: Machine) -> None:
    files = {"sys/fs/cgroup/cpu.max": "300000 100000\n", "sys/own/cpu.max": "100000 100000\n"}
    assert usable_cores(machine("0::/../../own\n", V2, files)) == 3


@pytest.mark.parametrize(("first", "second"), [(2, 5), (5, 2)])
def test_both_versions_count_on_a_hybrid_system(machine: Machine, first: int, second: int) -> None:
    mounts = V1 + V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    files = _v1("sys/fs/cgroup/cpu,cpuacct/a", f"{first}00000\n")
    files["sys/fs/cgroup/unified/b/cpu.max"] = f"{second}00000 100000\n"
    assert usable_cores(machine("4:cpu,cpuacct:/a\n0::/b\n", mounts, files)) == 2


def test_other_controllers_of_version_1_do_not_count(machine: Machine) -> None:
    own = "4:cpuset,cpuacct:/a\n3:cpu:/b\n"
    mounts = "32 31 0:29 / /cpuset rw - cgroup cgroup rw,cpuset,cpuacct\n33 31 0:30 / /cpu rw - cgroup cgroup rw,cpu\n"
    files = _v1("cpuset/a", "100000\n") | _v1("cpuset/b", "100000\n") | _v1("cpu/b", "600000\n")
    assert usable_cores(machine(own, mounts, files)) == 6


def test_mount_points_and_groups_with_spaces_and_colons_are_found(machine: Machine) -> None:
    mounts = V2.replace("/sys/fs/cgroup", r"/sys/control\040groups\134")
    assert usable_cores(machine("0::/a b:c\n", mounts, {"sys/control groups\\/a b:c/cpu.max": "200000 100000"})) == 2


@pytest.mark.parametrize(
    "limit",
    [
        "",
        "\n",
        "max",
        "200000",
        "nonsense 100000",
        "200000 0",
        "0 100000",
        "-1 100000",
        "200000 -100000",
        "2e5 100000",
        "200000 100000 7",
        "9" * 4000 + " 1",
        "9" * 2_000_000,
        "\udcff\0",
    ],
)
def test_malformed_quota_sets_no_limit(machine: Machine, limit: str) -> None:
    root = machine("0::/\n", V2, {"sys/fs/cgroup/cpu.max": ""})
    (root / "sys/fs/cgroup/cpu.max").write_bytes(os.fsencode(limit))
    assert usable_cores(root) == CORES


@pytest.mark.parametrize(
    ("own", "mounts"),
    [
        ("", V2),
        ("0::\n", V2),
        ("nonsense\n:::\n0\n", V2),
        ("1:cpu\n", V2),
        ("0::/\n", ""),
        ("0::/\n", "nonsense\n - \n - cgroup2 cgroup2 rw\n"),
        ("0::/\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2\n"),
        ("0::/\n", V2.replace("cgroup2", "tmpfs")),
        ("0::/gone (deleted)\n", V2.replace("/sys/fs/cgroup", "/nowhere")),
        ("0::/\n", V2.replace("/sys/fs/cgroup", r"/sys\000")),
    ],
)
def test_malformed_description_of_groups_sets_no_limit(machine: Machine, own: str, mounts: str) -> None:
    assert usable_cores(machine(own, mounts, {"sys/fs/cgroup/cpu.max": "100000 100000\n"})) == CORES


def test_no_more_of_a_file_is_read_than_the_kernel_writes(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_MOST_BYTES", len(V2))
    limit = {"sys/fs/cgroup/cpu.max": "100000 100000\n"}
    assert usable_cores(machine("0::/\n", V2, limit)) == 1
    assert usable_cores(machine("0::/\n", "#" * len(V2) + "\n" + V2, limit)) == CORES


def test_system_without_control_groups_has_all_its_cores(machine: Machine, tmp_path: Path) -> None:
    machine("", "", {})
    assert usable_cores(tmp_path / "nowhere") == CORES


def test_this_machine_has_a_core_at_least() -> None:
    assert usable_cores() >= 1


@pytest.mark.parametrize(("count", "usable"), [(6, 6), (None, 1)])
def test_system_without_affinity_counts_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int | None, usable: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores(tmp_path) == usable
