"""Why an asker gets what it gets, in words: for `mesh resolve`."""

from dataclasses import dataclass

from dnslib import DNSError, DNSRecord

from mesh.dns.forward import UpstreamRoute
from mesh.dns.lookup import HERE, LookupAnswer, LookupOutcome, candidates
from mesh.dns.scope import Scope
from mesh.dns.stats import FORWARD, LOCAL, OTHER, RCODES, TYPES
from mesh.dns.wire import DnsQuestion


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """As in a zone file. `ttl` in seconds."""

    name: str
    ttl: int
    type: str
    data: str


@dataclass(frozen=True, slots=True)
class ShownReply:
    """A reply in words. `fault`: why its records cannot be shown."""

    rcode: str
    records: tuple[ShownRecord, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """`reply` is what the asker gets, `docker` what its own Docker resolver would have said; None: nothing.

    `tried`: readings of the name up to the match. `servers`: who may be asked.
    """

    name: str
    source: str  # local | forward
    rule: str
    network: str
    tried: tuple[str, ...]
    servers: tuple[str, ...]
    reply: ShownReply | None = None
    docker: ShownReply | None = None


def explanation(
    question: DnsQuestion, scope: Scope, found: LookupAnswer, route: UpstreamRoute | None
) -> Explanation:
    """In words, what was decided. `route` None: nothing is forwarded."""
    here = found.outcome in HERE
    return Explanation(
        name=question.name,
        source=LOCAL if here else FORWARD,
        rule=_rule(found, route),
        network=found.network,
        tried=_tried(question.name, scope, found),
        servers=() if route is None else tuple(map(str, route.servers)),
    )


def shown(reply: bytes | None) -> ShownReply | None:
    """A reply's rcode and records. dnslib prints records of all types; its many errors end here."""
    if reply is None:
        return None
    rcode = RCODES.get(reply[3] & 0xF, OTHER)
    try:
        records = tuple(
            ShownRecord(str(rr.rname), rr.ttl, TYPES.get(rr.rtype, str(rr.rtype)), str(rr.rdata))
            for rr in DNSRecord.parse(reply).rr
        )
    except (DNSError, ValueError, LookupError) as error:
        return ShownReply(rcode, fault=f"the reply cannot be read ({error})")
    return ShownReply(rcode, records)


def _rule(found: LookupAnswer, route: UpstreamRoute | None) -> str:
    known = f"'{found.matched}' is known on network {found.network}"
    if found.rule:
        known += f" ({found.rule})"
    if found.outcome is LookupOutcome.RECORDS:
        return known
    if found.outcome is LookupOutcome.NODATA:
        return f"{known}, without such a record"
    if found.outcome is LookupOutcome.SHORT:
        return "unknown, and the asker searches for short names (ndots): not forwarded as it is"
    if found.outcome is LookupOutcome.ELSEWHERE:
        return f"{known}, and what it has no record of is forwarded"
    if route is None:
        return "unknown, and nothing is forwarded from internal networks"
    if not route.servers:
        return "unknown, and there is no server to ask"
    return {
        "docker": f"'{found.matched}' belongs to a service left to Docker: its resolver is asked",
        "container": "unknown on every network of the asker: forwarded to the container's own servers",
        "host": "unknown on every network of the asker: forwarded to the host's upstreams",
    }[route.kind]


def _tried(name: str, scope: Scope, found: LookupAnswer) -> tuple[str, ...]:
    tried: list[str] = []
    for candidate in candidates(name, scope):
        for _, network in candidate.networks:
            tried.append(f"{candidate.name} on {network}")
            if (candidate.name.lower(), network) == (found.matched, found.network):
                return tuple(tried)
    return tuple(tried)
