"""Containers that no service made, on an attachable network: named on every node, as Docker names them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.swarm import APP_IMAGE, Box, Swarm, eventually

NETWORK = "attached"


@contextmanager
def plain(swarm: Swarm, node: str, name: str, *options: str) -> Iterator[Box]:
    """`docker run` on the node; removed at the end."""
    argv = ["run", "-d", "--name", name, "--network", NETWORK, *options, "--entrypoint", "sleep"]
    id_ = swarm.docker(*argv, APP_IMAGE, "infinity", node=node)
    try:
        box = swarm.box(node, json.loads(swarm.docker("inspect", "-f", "{{json .}}", id_, node=node)))
        assert box is not None, f"{name} runs"
        yield box
    finally:
        swarm.docker("rm", "-f", id_, node=node, check=False)


def pointer(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def said_by_both(asker: Box, name: str, data: list[str], kind: str = "A") -> None:
    """Docker's own resolver says the same; either may hear of it first."""
    eventually(lambda: asker.dig(name, kind).data == data, f"{name} {kind} is {data}", 10)
    eventually(lambda: asker.dig_docker(name, kind).data == data, f"so says Docker of {name}", 10)


def test_names_of_a_container_on_another_node_come_and_go(swarm: Swarm) -> None:
    """`four.test` is a name of the outside, too."""
    swarm.network(NETWORK, "--attachable", "--subnet", "172.35.0.0/24")
    aliases = "--network-alias", "p-alias", "--network-alias", "four.test", "--network-alias", "shared"
    with plain(swarm, "swarm01", "p-asker", "--network-alias", "shared") as asker:
        outside = asker.dig("four.test").data
        with plain(swarm, "swarm02", "p-far", "--hostname", "p-host", *aliases) as far:
            address = far.addresses[NETWORK]
            names = "p-far", "p-alias", "four.test", far.id[:12], "p-host", f"p-far.{NETWORK}"
            for name in names:
                said_by_both(asker, name, [address])
                assert asker.dig(name, "AAAA").status == "NOERROR"
            both = sorted((address, asker.addresses[NETWORK]))
            said_by_both(asker, "shared", both)
            said_by_both(asker, pointer(address), [f"p-far.{NETWORK}."], "PTR")
            said_by_both(far, "p-asker", [asker.addresses[NETWORK]])
        for name in ("p-far", "p-alias", far.id[:12]):
            eventually(lambda name=name: asker.dig(name).status == "NXDOMAIN", f"{name} is gone")  # type: ignore[misc]
        assert asker.dig("four.test").data == outside
        assert asker.dig("shared").data == [asker.addresses[NETWORK]]
        assert asker.dig(pointer(address), "PTR").status == "NXDOMAIN"


def test_they_stay_named_while_their_sidecar_is_away(swarm: Swarm) -> None:
    swarm.network(NETWORK, "--attachable", "--subnet", "172.35.0.0/24")
    with plain(swarm, "swarm01", "p-asker") as asker, plain(swarm, "swarm02", "p-far") as far:
        address = [far.addresses[NETWORK]]
        eventually(lambda: asker.dig("p-far").data == address, "it is named")
        before = swarm.sidecar("swarm02")
        swarm.docker("kill", before, node="swarm02")  # Swarm starts another, 5 s later or so
        answers = []

        def back() -> bool:
            answers.append(asker.dig("p-far").data)
            return swarm.ready("swarm02") and swarm.sidecar("swarm02") != before

        eventually(back, "the sidecar is back", 90)
        assert len(answers) > 1
        assert all(one == address for one in answers)
        assert asker.dig("p-far").data == address
