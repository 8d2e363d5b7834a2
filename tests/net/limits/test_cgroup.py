"""Limits of the control group, as both versions of the interface have them."""

from pathlib import Path

import pytest

from mesh.net.limits.cgroup import CgroupLimits, limits


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"cgroup_procs": "1\n", **files}.items():
        (folder / name.replace("_", ".", 1)).write_text(text)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


MEMORY = {"memory_current": "3000\n", "memory_stat": "anon 5\ninactive_file 1000\n"}


def test_version_2_as_a_container_sees_it(root: Path, own: Path) -> None:
    own.write_text("0::/\n")
    group(root, cgroup_controllers="memory pids\n", memory_max="9000\n", pids_max="max\n", pids_current="7\n")
    group(root, **MEMORY)
    assert limits(root, own) == CgroupLimits(2000, 9000, 7, None)


def test_version_2_with_the_hosts_tree_and_a_limit_above(root: Path, own: Path) -> None:
    own.write_text("0::/system.slice/docker-1.scope\n")
    group(root, cgroup_controllers="memory pids\n")
    group(root / "system.slice", memory_max="5000\n", pids_max="100\n")
    group(root / "system.slice/docker-1.scope", memory_max="9000\n", pids_max="50\n", pids_current="7\n")
    group(root / "system.slice/docker-1.scope", **MEMORY)
    assert limits(root, own) == CgroupLimits(2000, 5000, 7, 50)


def test_version_1_whose_path_is_not_there_inside(root: Path, own: Path) -> None:
    own.write_text("5:pids:/docker/1\n4:memory:/docker/1\n0::/\n")
    group(root / "pids", pids_max="100\n", pids_current="7\n")
    group(root / "memory", memory_limit_in_bytes="9223372036854771712\n", memory_usage_in_bytes="3000\n")
    (root / "memory/memory.stat").write_text("total_inactive_file 1000\n")
    assert limits(root, own) == CgroupLimits(2000, None, 7, 100)
    (root / "memory/memory.limit_in_bytes").write_text("9000\n")
    assert limits(root, own).memory_max == 9000


def test_where_nothing_can_be_seen(tmp_path: Path) -> None:
    assert limits(tmp_path / "none", tmp_path / "neither") == CgroupLimits()
