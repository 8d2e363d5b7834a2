"""The operator's rules in DOCKER-USER come first, however a port is carried and whenever they were put in."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.firewall_rig import (
    BAD,
    ENTRY_OPEN,
    GOOD,
    GOOD6,
    KERNEL_OPEN,
    RELAY_OPEN,
    TCP_PORTS,
    Node,
    Sidecar,
    node,
    run,
)
from tests.net.lab import needs_root

pytestmark = [pytest.mark.root, needs_root]

BACK_SECONDS = 2.0  # within which traffic is back after a reload
OPEN = (KERNEL_OPEN, RELAY_OPEN, ENTRY_OPEN)
NOT_IN = "-i ens32 ! -s 198.51.100.0/28 -p tcp -m multiport --dports 80,82,8800 -j DROP"


def backends() -> list[str]:
    return [one for one in ("nft", "legacy") if shutil.which(f"iptables-{one}-save")]


@pytest.fixture(params=backends())
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    with node(tmp_path, request.param) as made:
        yield made


async def serving(box: Node) -> None:
    """All that is open answers, over IPv4."""
    for port in (*TCP_PORTS, *OPEN):
        await box.back(port)


async def closed(box: Node, ports: tuple[int, ...] = TCP_PORTS, source: str = BAD) -> None:
    """And what is open is open for the same client at the same time."""
    beside = dict(zip(TCP_PORTS, OPEN, strict=True))
    for port in ports:
        assert not await box.is_reached(port, source), f"{port} answers {source}"
        assert await box.is_reached(beside[port], source), f"{beside[port]} does not answer {source}"
        assert await box.is_reached(port, GOOD6 if ":" in source else GOOD), f"{port} is closed for all"


def test_a_rule_from_before_and_one_put_in_later(box: Node) -> None:
    box.operator(f"-I DOCKER-USER {NOT_IN}")

    async def work() -> None:
        sidecar = Sidecar(box)
        await sidecar.start()
        await serving(box)
        await closed(box)
        box.operator(f"-D DOCKER-USER {NOT_IN}")
        for port in TCP_PORTS:
            assert await box.is_reached(port)
        box.operator("-D DOCKER-USER -j RETURN")  # Docker 28 has none, so that -A is of use
        box.operator(f"-A DOCKER-USER {NOT_IN}")
        await closed(box)
        await sidecar.stop()

    run(box, work)
    assert "mesh" not in box.rules().lower()
