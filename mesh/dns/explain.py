"""Why an asker gets what it gets, in words: for `mesh resolve`."""

from dataclasses import dataclass, replace

from dnslib import DNSError, DNSRecord

from mesh.dns.answers import HERE, Answer, Outcome, Record, candidates
from mesh.dns.scope import Scope
from mesh.dns.stats import FORWARD, LOCAL, OTHER, RCODES
from mesh.dns.upstream import Route
from mesh.dns.wire import Question, Rcode


@dataclass(frozen=True, slots=True)
class Explanation:
    """`rcode` is "" when only the servers can tell. `tried`: readings of the name up to the match."""

    name: str
    source: str  # local | forward
    rule: str
    network: str
    rcode: str
    records: tuple[Record, ...]
    tried: tuple[str, ...]
    servers: tuple[str, ...]


def explanation(question: Question, scope: Scope, found: Answer, route: Route | None) -> Explanation:
    """In words, what was decided. `route` None: nothing is forwarded."""
    here = found.outcome in HERE
    servers = () if route is None else route.servers
    return Explanation(
        name=question.name,
        source=LOCAL if here else FORWARD,
        rule=_rule(found, route),
        network=found.network,
        rcode=RCODES[Rcode.NOERROR] if here else "" if servers else RCODES[Rcode.SERVFAIL],
        records=found.records,
        tried=_tried(question.name, scope, found),
        servers=tuple(map(str, servers)),
    )


def with_reply(told: Explanation, reply: bytes) -> Explanation:
    """With what the servers said. dnslib prints records of all types; its many errors end here."""
    rcode = RCODES.get(reply[3] & 0xF, OTHER)
    try:
        records = tuple(Record(rr.rtype, str(rr.rdata)) for rr in DNSRecord.parse(reply).rr)
    except (DNSError, ValueError, LookupError) as error:
        return replace(told, rcode=rcode, rule=f"{told.rule}; the reply cannot be read ({error})")
    return replace(told, rcode=rcode, records=records)


def _rule(found: Answer, route: Route | None) -> str:
    known = f"'{found.matched}' is known on network {found.network}"
    if found.rule:
        known += f" ({found.rule})"
    if found.outcome is Outcome.RECORDS:
        return known
    if found.outcome is Outcome.NODATA:
        return f"{known}, without such a record"
    if found.outcome is Outcome.ELSEWHERE:
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


def _tried(name: str, scope: Scope, found: Answer) -> tuple[str, ...]:
    tried: list[str] = []
    for candidate in candidates(name, scope):
        for _, network in candidate.networks:
            tried.append(f"{candidate.name} on {network}")
            if (candidate.name.lower(), network) == (found.matched, found.network):
                return tuple(tried)
    return tuple(tried)
