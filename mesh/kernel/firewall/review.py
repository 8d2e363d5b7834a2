"""Looking through the host's whole firewall for what would keep clients out of published ports."""

import json
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any

from mesh.errors import KernelError
from mesh.kernel.firewall.filter_table import Family, FilterTable
from mesh.kernel.firewall.iptables import backends, run_program
from mesh.kernel.firewall.listener_rules import MARK_LEGACY, MARK_NFT
from mesh.kernel.firewall.nft_listing import BaseChain, base_chains
from mesh.kernel.firewall.rule_walk import FirstPacket, Obstacle, obstacles

PORTS_MAX = 256  # that one look leads through the rules; a step takes some microseconds
LISTENER_MARKS = MARK_NFT | MARK_LEGACY

Review = Callable[[Mapping[str, FirstPacket]], Coroutine[Any, Any, dict[str, list[Obstacle]]]]


async def review(
    packets: Mapping[str, FirstPacket], namespace: str | None = None
) -> dict[str, list[Obstacle]]:
    """Port, as the caller calls it → what drops a client's first packet to it; only those that something
    drops. KernelError: the rules cannot be read."""
    tables = [(family, await backend.table()) for family in Family for backend in backends(family, namespace)]
    others = await _others(namespace)
    found = {}
    for name, packet in list(packets.items())[:PORTS_MAX]:
        seen = list(dict.fromkeys(_dropping(packet, tables, others)))
        if seen:
            found[name] = seen
    return found


def _dropping(
    packet: FirstPacket, tables: list[tuple[Family, FilterTable]], others: list[BaseChain]
) -> Iterator[Obstacle]:
    chain = "FORWARD" if packet.translated else "INPUT"
    wanted = Family.IPV6 if packet.over_ipv6 else Family.IPV4
    for family, table in tables:
        if family is wanted and (table.asks_operator or not packet.over_ipv6):  # else it is not opened
            yield from obstacles(table, chain, packet)
    for base in others:
        if base.hook == chain.lower() and base.family in ("inet", "ip6" if packet.over_ipv6 else "ip"):
            for one in obstacles(base.table, base.name, packet):
                policy = one.rule.startswith("-P ")
                yield Obstacle(f"nft {base.family} {one.rule}", one.everybody) if policy else one


async def _others(namespace: str | None) -> list[BaseChain]:
    """What only `nft` shows; nothing where that is not installed."""
    enter = [] if namespace is None else ["nsenter", f"--net={namespace}"]
    try:
        listed = await run_program([*enter, "nft", "--json", "list", "ruleset"])
        text = await run_program([*enter, "nft", "-a", "list", "ruleset"])
        return base_chains(json.loads(listed), text)
    except KernelError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise KernelError(f"the listing of nft cannot be read: {error}") from error
