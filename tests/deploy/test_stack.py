"""What the stack file asks of a node, and what the image is made from: no more than is needed."""

import re
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()


@pytest.fixture
def sidecar() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((ROOT / "deploy/stack.yml").read_text())["services"]["sidecar"]
    return service


def locked(name: str) -> dict[str, str]:
    """Package → version of a lock file; each has at least one hash."""
    found = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "deploy" / name).read_text()):
        if pin := re.match(r"([A-Za-z0-9._-]+)==([^ \\]+)", entry):
            assert "--hash=sha256:" in entry, pin[1]
            found[normal(pin[1])] = pin[2]
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_it_has_these_capabilities_and_no_other(sidecar: dict[str, Any]) -> None:
    assert sidecar["cap_drop"] == ["ALL"]
    assert sorted(sidecar["cap_add"]) == [
        "KILL", "NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN",
    ]  # fmt: skip
    assert "privileged" not in sidecar
    assert "pid" not in sidecar


def test_its_root_is_read_only_and_what_it_writes_is_in_memory_or_its_volume(sidecar: dict[str, Any]) -> None:
    assert sidecar["read_only"] is True
    writable = {one["target"]: one["type"] for one in sidecar["volumes"] if not one.get("read_only")}
    assert writable == {
        "/run": "tmpfs",
        "/tmp": "tmpfs",
        "/var/lib/mesh": "volume",
        "/var/run/docker.sock": "bind",  # a socket is written to, whatever its mount says
        "/var/run/docker/netns": "bind",
    }
    assert all(one["tmpfs"]["size"] for one in sidecar["volumes"] if one["type"] == "tmpfs")


def test_of_the_hosts_files_it_sees_single_ones(sidecar: dict[str, Any]) -> None:
    sources = {one["source"] for one in sidecar["volumes"] if one["type"] == "bind"}
    assert sources == {
        "${MESH_RESOLV_CONF:-/etc/resolv.conf}",
        "/var/lib/docker/swarm/certificates",
        "/var/run/docker.sock",
        "/var/run/docker/netns",
    }


def test_the_admin_api_is_not_opened_over_tcp(sidecar: dict[str, Any]) -> None:
    assert "MESH_ADMIN_LISTEN" not in sidecar["environment"]


def test_the_base_is_named_by_its_digest() -> None:
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", DOCKERFILE, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BASE}", "${BASE}"]


def test_every_package_of_the_image_is_checked_by_its_hash() -> None:
    from_an_index = [line for line in DOCKERFILE.splitlines() if "pip" in line and "install" in line]
    assert any("--require-hashes" in line for line in from_an_index)
    assert all(
        "--require-hashes" in line or "--no-index" in line or "uninstall" in line for line in from_an_index
    )


def test_the_lock_has_what_the_project_depends_on() -> None:
    """And what that depends on in turn, here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = locked("requirements.lock")
    wanted = [Requirement(text) for text in project["dependencies"]]
    seen: set[str] = set()
    while wanted:
        one = wanted.pop()
        name = normal(one.name)
        assert one.specifier.contains(lock[name]), f"{one} is not {lock[name]}: make lock"
        if name not in seen:
            seen.add(name)
            wanted += needed_by(distribution(one.name), one.extras)


def needed_by(package: Distribution, extras: set[str]) -> list[Requirement]:
    needed = [Requirement(text) for text in package.requires or ()]
    contexts = [{"extra": extra} for extra in ("", *extras)]
    return [
        one
        for one in needed
        if one.marker is None or any(one.marker.evaluate(context) for context in contexts)
    ]


def test_the_lock_of_the_build_has_what_builds() -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    lock = locked("build-requirements.lock")
    assert all(Requirement(text).specifier.contains(lock[normal(Requirement(text).name)]) for text in wanted)
