"""Which node enters the ingress network where: the claims of the nodes, judged. Pure.

A task that keeps the client's address recognises an entry by its MAC address and answers through its IPv4
address. So each address and each MAC has one owner. A second claim would lead the answers of one entry's
clients to another node, and is refused.

What decides, in this order: what is known for certain (this node's own entry, what the engine says of an
address), the claim that was accepted before, the claim whose MAC is that of its address, the node's id.

Docker's overlay driver derives an endpoint's MAC from its address: 02:42 and the four bytes (libnetwork
`netutils.GenerateMACFromIP`). A MAC of that form therefore belongs to that address alone. MACs of another
form can't be checked; the first claim stays.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv4Network

OVERLAY_MAC = "02:42:"  # before the four bytes of the address
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
NODES_MAX = 4096  # whose claims are judged; Swarm is run with fewer, and each costs a routing table in a task


class ClaimFault(StrEnum):
    """Why a claim is refused."""

    ADDRESS = "address"  # no address of an entry of this node: outside the subnet, a gateway's, somebody's
    MAC = "mac"  # none of one interface, or the MAC of another address
    TAKEN = "taken"  # another node has the address or the MAC


@dataclass(frozen=True, slots=True)
class EntryClaim:
    """`address` "": no entry. `mac` "": nothing can be recognised by it."""

    address: str
    mac: str = ""


@dataclass(frozen=True, slots=True)
class EntryFacts:
    """What is known for certain. `subnets` None: unknown, any IPv4 address may be an entry's.

    `own`: the entry that this node has itself. `proven`: node → the address of its entry, as the engine says.
    `others`: addresses that are no entry's: of tasks, virtual IPs, gateways.
    """

    subnets: Collection[str] | None = None
    own: EntryClaim | None = None
    proven: Mapping[str, str] = field(default_factory=dict)
    others: Collection[str] = ()


NO_FACTS = EntryFacts()


@dataclass(frozen=True, slots=True)
class Judged:
    """Each claim is in one of them, by node."""

    accepted: Mapping[str, EntryClaim]
    refused: Mapping[str, ClaimFault]


def judge(
    claims: Mapping[str, EntryClaim],
    facts: EntryFacts = NO_FACTS,
    held: Mapping[str, EntryClaim] | None = None,
) -> Judged:
    """`claims` by node; `held`: what was accepted before."""
    held = held or {}
    accepted: dict[str, EntryClaim] = {}
    refused: dict[str, ClaimFault] = {}
    subnets = None if facts.subnets is None else tuple(_ip4_subnets(facts.subnets))
    owner_of = {address: node for node, address in facts.proven.items()}
    own = facts.own or EntryClaim("")
    addresses, macs = {own.address} - {""}, {own.mac} - {""}

    def rank(node: str) -> tuple[bool, bool, bool, str]:
        claim = claims[node]
        return (
            facts.proven.get(node) != claim.address,
            held.get(node) != claim,
            claim.mac != derived_mac(claim.address),
            node,
        )

    for count, node in enumerate(sorted(claims, key=rank)):
        claim = claims[node]
        fault = claim_fault(claim, subnets)
        known = facts.proven.get(node, claim.address)
        if not fault and claim.address:
            foreign = owner_of.get(claim.address, node) != node or known != claim.address
            if foreign or claim.address in facts.others:
                fault = ClaimFault.ADDRESS
            elif claim.address in addresses or claim.mac in macs or count >= NODES_MAX:
                fault = ClaimFault.TAKEN
        if fault:
            refused[node] = fault
            continue
        accepted[node] = claim
        addresses.add(claim.address)
        if claim.mac:
            macs.add(claim.mac)
    return Judged(accepted, refused)


def claim_fault(claim: EntryClaim, subnets: Collection[IPv4Network] | None) -> ClaimFault | None:
    """What is wrong with a claim by itself."""
    if not claim.address:
        return ClaimFault.MAC if claim.mac else None
    if not is_host_address(claim.address, subnets):
        return ClaimFault.ADDRESS
    if not claim.mac:
        return None
    if not _MAC.fullmatch(claim.mac) or int(claim.mac[:2], 16) & 1 or claim.mac == "00:00:00:00:00:00":
        return ClaimFault.MAC  # multicast, or none
    if claim.mac.startswith(OVERLAY_MAC) and claim.mac != derived_mac(claim.address):
        return ClaimFault.MAC
    return None


def derived_mac(address: str) -> str:
    """The MAC of the overlay endpoint with this IPv4 address; "" where that is none."""
    try:
        octets = IPv4Address(address).packed
    except AddressValueError:
        return ""
    return OVERLAY_MAC + octets.hex(":")


def is_host_address(text: str, subnets: Collection[IPv4Network] | None) -> bool:
    """An IPv4 address that a host of one of the subnets can have. `subnets` None: of any network."""
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    if subnets is None:
        return not (address.is_multicast or address.is_loopback or address.is_unspecified)
    return any(
        address in one and address not in (one.network_address, one.broadcast_address) for one in subnets
    )


def gateways_of(subnets: Collection[str]) -> Iterator[str]:
    """What Docker gives to gateways where nobody has chosen: the first address of each subnet."""
    for one in _ip4_subnets(subnets):
        yield str(one.network_address + 1)


def _ip4_subnets(subnets: Collection[str]) -> Iterator[IPv4Network]:
    for text in subnets:
        try:
            yield IPv4Network(text, strict=False)
        except ValueError:
            continue  # IPv6
