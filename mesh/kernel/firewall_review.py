"""Looking through the host's whole firewall for what would keep clients out of published ports."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping

from mesh.errors import KernelError
from mesh.kernel.filter_table import Family, FilterTable, parse
from mesh.kernel.iptables import backends, run_program
from mesh.kernel.listener_rules import MARK_LEGACY, MARK_NFT
from mesh.kernel.nft_listing import BaseChain, base_chains
from mesh.kernel.rule_walk import FirstPacket, Obstacle, obstacles

PORTS_MAX = 256  # that one look leads through the rules; a step takes some microseconds
LISTENER_MARKS = MARK_NFT | MARK_LEGACY

Review = Callable[[Mapping[str, FirstPacket]], Awaitable[dict[str, list[Obstacle]]]]


async def review(
    packets: Mapping[str, FirstPacket], namespace: str | None = None
) -> dict[str, list[Obstacle]]:
    """Port, as the caller calls it → what drops a client's first packet to it; only those that something
    drops. KernelError: the rules cannot be read."""
    tables = [
        ("" if family is Family.IPV4 else "ip6tables: ", family, parse(await backend.save()))
        for family in Family
        for backend in backends(family, namespace)
    ]
    others = await _others(namespace)
    found = {}
    for name, packet in list(packets.items())[:PORTS_MAX]:
        seen = dict[str, Obstacle]()
        for prefix, one in _dropping(packet, tables, others):
            rule = prefix + one.rule
            seen[rule] = Obstacle(rule, one.everybody or (rule in seen and seen[rule].everybody))
        if seen:
            found[name] = list(seen.values())
    return found


def _dropping(
    packet: FirstPacket, tables: list[tuple[str, Family, FilterTable]], others: list[BaseChain]
) -> Iterator[tuple[str, Obstacle]]:
    chain = "FORWARD" if packet.translated else "INPUT"
    for prefix, family, table in tables:
        # Over IPv6 ports are opened where there is a DOCKER-USER; none are led through FORWARD.
        if family is Family.IPV4 or (table.asks_operator and not packet.translated):
            for one in obstacles(table, chain, packet):
                yield prefix, one
    for base in others:
        if base.hook == chain.lower() and base.family in ("ip", "inet"):
            for one in obstacles(base.table, base.name, packet):
                yield f"{base.family} " if one.rule.startswith("-P ") else "", one


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
