"""What the stack file gives the sidecar on a real node: capabilities, a read-only root, its own socket."""

import pytest

from tests.support.swarm import NODES, Swarm, eventually

NEEDED = "00000000002035e0"  # the eight of deploy/stack.yml as bits (capabilities(7))
NONE = "0000000000000000"
EDGE = "sidecar.processes.edge"
LIST = r"""
for one in /proc/[0-9]*; do
    words=$(tr '\0' ' ' < $one/cmdline 2>/dev/null) || continue
    echo "$(awk '/^Uid|^CapEff|^CapBnd|^NoNewPrivs/ { printf "%s ", $2 }' $one/status) $words"
done
"""


def inside(swarm: Swarm, node: str, *argv: str, check: bool = True) -> str:
    return swarm.docker("exec", swarm.sidecar(node), *argv, node=node, check=check)


def processes(swarm: Swarm, node: str) -> list[tuple[list[str], str]]:
    """([uid, effective, bounding set, no_new_privs], command line) of each process in its container."""
    lines = inside(swarm, node, "sh", "-c", LIST).splitlines()
    return [(line.split()[:4], " ".join(line.split()[4:])) for line in lines if line.strip()]


@pytest.mark.parametrize("node", NODES)
def test_the_sidecar_has_eight_capabilities_and_who_reads_strangers_has_none(swarm: Swarm, node: str) -> None:
    swarm.service("old", "--publish", "81:8080", "--label", "mesh.port.81.mode=proxy")

    def edges() -> list[list[str]]:
        return [facts for facts, words in processes(swarm, node) if EDGE in words]

    eventually(lambda: len(edges()) >= 2, "processes for entry points and for the relayed port")
    (sidecar,) = [facts for facts, words in processes(swarm, node) if words.endswith("mesh run")]
    assert sidecar[:3] == ["0", NEEDED, NEEDED]
    for uid, effective, bounding, no_new_privileges in edges():
        assert uid != "0"
        assert (effective, bounding, no_new_privileges) == (NONE, NONE, "1")


def test_its_root_is_read_only_and_it_sees_no_more_of_etc_than_resolv_conf(swarm: Swarm) -> None:
    node = NODES[1]
    assert "Read-only" in inside(swarm, node, "sh", "-c", "touch /x 2>&1", check=False)
    assert inside(swarm, node, "ls", "/host").split() == ["resolv.conf"]


def test_only_root_in_its_container_can_ask_the_admin_api(swarm: Swarm) -> None:
    node = NODES[1]
    assert inside(swarm, node, "stat", "-c", "%a %U", "/run/mesh/admin.sock").split() == ["600", "root"]
    assert swarm.on(node, "ss", "-Hltn", "sport = :9181").strip() == ""  # nor is it there over TCP
    assert swarm.mesh(node, "status")["node"] == node
