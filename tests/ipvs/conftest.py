"""The ring on a kernel with IPVS: the lab's Swarm in a virtual machine, two nodes, made once for the session.

By hand (`make test-ipvs`): without KVM everything is emulated, and takes many minutes.
`MESH_VM_KEEP=1` leaves the machine on afterwards (and uses one that is on), for work by hand.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ipvs.machine import NODES, VM, Machine
from tests.support.swarm import run

UP_LIMIT = 1500.0  # seconds; a cold start makes two Debian trees, the images, and a disk


def why_not() -> str:
    """Why this ring cannot run here, or ""."""
    if os.environ.get("MESH_IPVS") != "1":
        return "the IPVS ring emulates a machine for many minutes: run `make test-ipvs`"
    if os.geteuid() != 0:
        return "the IPVS ring needs root (disks with files of all owners)"
    if shutil.which("qemu-system-x86_64") is None:
        return "the IPVS ring needs qemu: `tests/lab/vm setup` installs it on Debian or Ubuntu"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_not()
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.ipvs)
            item.add_marker(pytest.mark.timeout(UP_LIMIT))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def powered() -> Iterator[Machine]:
    """Two nodes on a kernel with IPVS, without the mesh, and two services on both."""
    try:
        run([*VM, "up", "--nodes", "2"], limit=UP_LIMIT)
        machine = Machine()
        machine.publish_services()
        yield machine
    finally:
        if not os.environ.get("MESH_VM_KEEP"):
            subprocess.run([*VM, "down"], check=False, timeout=120)


@pytest.fixture(scope="session")
def before(powered: Machine) -> dict[str, dict[str, list[str]]]:
    """What Docker had in the kernel of each node when there was no mesh yet."""
    return {node: powered.dockers(node) for node in NODES}


@pytest.fixture(scope="session")
def deployed(powered: Machine, before: dict[str, dict[str, list[str]]]) -> Machine:
    powered.deploy()
    return powered
