"""The real-Swarm ring: one lab for the whole session, torn down whatever happens.

`MESH_LAB_KEEP=1` leaves the lab up afterwards (and uses one that is already up), for work by hand.
`MESH_LAB_ENGINE=trixie` runs the same tests on Debian trixie's engine.
"""

import os
import shutil
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.swarm import LAB, NODES, Swarm, eventually, run

LOG_LINES = 200  # of each sidecar, shown beside a test that failed
UP_LIMIT = 1500.0  # seconds; a cold start debootstraps two trees and builds two images


def why_not() -> str:
    """Why this ring cannot run here, or ""."""
    if os.geteuid() != 0:
        return "the real-Swarm ring needs root (network namespaces, a Docker engine)"
    if shutil.which("dockerd") is None:
        return (
            "the real-Swarm ring needs Docker's engine: `tests/lab/lab setup` installs it on Debian or Ubuntu"
        )
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_not()
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(600))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that failed shows what the sidecars of the three nodes said meanwhile."""
    report = yield
    if report.failed and report.when == "call" and Path(__file__).parent in item.path.parents:
        for node in NODES:
            report.sections.append((f"{node}'s sidecar", said_by(node)))
    return report


def said_by(node: str) -> str:
    """The last lines of all sidecars that ran on the node, ended ones too."""
    every = ("docker", "ps", "-aq", "--filter", "label=com.docker.swarm.service.name=mesh_sidecar")
    found = run([*LAB, "node", node, "--", *every], check=False).split()
    logs = ("docker", "logs", "--timestamps", "--tail", str(LOG_LINES))
    shell = "".join(f"{' '.join(logs)} {id_} 2>&1; " for id_ in reversed(found)) or ":"
    return run([*LAB, "node", node, "--", "sh", "-c", shell], check=False)


@pytest.fixture(scope="session")
def lab() -> Iterator[Swarm]:
    """Three engines, one Swarm, the mesh deployed from deploy/stack.yml as it stands."""
    try:
        run([*LAB, "up", "--engine", os.environ.get("MESH_LAB_ENGINE", "bookworm")], limit=UP_LIMIT)
        os.environ.setdefault(
            "MESH_HTTP_ENTRYPOINTS", "web=0.0.0.0:8800,websecure=0.0.0.0:8843/tls"
        )  # the stack file takes it over
        run([*LAB, "deploy"], limit=UP_LIMIT)
        yield Swarm()
    finally:
        if not os.environ.get("MESH_LAB_KEEP"):
            subprocess.run([*LAB, "down"], check=False, timeout=300)


@pytest.fixture
def swarm(lab: Swarm) -> Iterator[Swarm]:
    """The lab, every sidecar ready; what the test makes is removed afterwards."""
    for node in NODES:
        eventually(lambda node=node: lab.ready(node), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]
    yield lab
    lab.tidy()
