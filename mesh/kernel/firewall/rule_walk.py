"""Which rules of a host's firewall keep a client out of a published port, told from the rules alone. Pure.

A packet is led through the chains as far as rules can be read. Whoever the client is, is not known; so a
match is yes, no or maybe, and a rule that drops some clients only is told as one. What cannot be read
counts as maybe: a rule is rather named without need than left out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import ip_address, ip_network

from mesh.kernel.firewall.filter_table import FilterTable, Rule, Words

STEPS_MAX = 20_000  # rules that one packet is led past; chains that lead to each other can be many more
DEPTH_MAX = 16  # chains within chains
CONTAINERS = ("docker", "br-", "veth", "docker_gwbridge", "lo", "cni", "virbr")  # no client comes in by these
FLAGS = frozenset(("FIN", "SYN", "RST", "PSH", "ACK", "URG"))


class Match(IntEnum):
    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(frozen=True, slots=True)
class FirstPacket:
    """Of a client outside, as a chain sees it."""

    protocol: str  # tcp | udp | sctp
    port: int
    translated: bool = False  # DNATed to the ingress namespace
    destination: str = ""  # "": one of the node's addresses
    out: str = ""  # interface that it leaves by; "": it stays here
    marks: int = 0  # of ours, that are on it
    over_ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Obstacle:
    """A rule that drops it. `rule`: as its author wrote it. `everybody`: no client passes it."""

    rule: str
    everybody: bool


@dataclass(frozen=True, slots=True)
class _Past:
    """What becomes of those who enter a chain: do some come out at its end, are some accepted in it?"""

    some: bool
    accepted: bool


@dataclass(slots=True)
class _WalkedWay:
    packet: FirstPacket
    table: FilterTable
    found: dict[str, bool] = field(default_factory=dict)  # rule → everybody
    steps: int = 0

    def walk(self, chain: str, reach: Match, depth: int = 0) -> _Past:
        """`reach`: YES when all clients that nothing has dropped come to the chain."""
        returned = accepted = False
        for rule in self.table.rules.get(chain, ()):
            self.steps += 1
            if self.steps > STEPS_MAX or depth > DEPTH_MAX:
                return _Past(True, True)
            matched = matches(rule.words, self.packet)
            if matched is Match.NO:
                continue
            past = self._past(rule, min(reach, matched), depth)
            accepted |= past.accepted
            back = past.some and (rule.target == "RETURN" or "-g" in rule.words)
            if matched is Match.YES and (back or not past.some):
                return _Past(returned or back, accepted)
            returned |= back
            if past.accepted or back:
                reach = Match.MAYBE
        return _Past(True, accepted)

    def _past(self, rule: Rule, reach: Match, depth: int) -> _Past:
        target = rule.target
        if target in ("DROP", "REJECT"):
            self.found[rule.text] = self.found.get(rule.text, False) or reach is Match.YES
            return _Past(False, False)
        if target == "ACCEPT":
            return _Past(False, True)
        if target in self.table.policies:
            return self.walk(target, reach, depth + 1)
        return _Past(True, False)  # RETURN, or what decides nothing


def obstacles(table: FilterTable, chain: str, packet: FirstPacket) -> list[Obstacle]:
    """What of a built-in chain, and of those it leads to, drops the packet."""
    way = _WalkedWay(packet, table)
    past = way.walk(chain, Match.YES)
    unsure = past.accepted and not table.exact  # an accepting rule may be meant for everybody
    if past.some and not unsure and table.policies.get(chain) in ("DROP", "REJECT"):
        way.found[f"-P {chain} {table.policies[chain]}"] = not past.accepted
    return [Obstacle(rule, everybody) for rule, everybody in way.found.items()]


def matches(words: Words, packet: FirstPacket) -> Match:
    """The weakest of a rule's matches."""
    weakest = Match.YES
    for negated, option, values in _options(words):
        found = _matches(option, values, packet)
        weakest = min(weakest, Match(2 - found) if negated else found)
    return weakest


def _options(words: Words) -> Iterator[tuple[bool, str, Sequence[str]]]:
    """(negated, option, its values), up to the target."""
    negated, at = False, 0
    while at < len(words):
        word = words[at]
        at += 1
        if word in ("-j", "-g"):
            return
        if word == "!":
            negated = True
            continue
        end = at
        while end < len(words) and words[end] != "!" and not words[end].startswith("-"):
            end += 1
        yield negated, word, words[at:end]
        negated, at = False, end


def _matches(option: str, values: Sequence[str], packet: FirstPacket) -> Match:
    value = values[0] if values else ""
    match option:
        case "-m" | "--comment":
            return Match.YES
        case "-p":
            return _sure(packet.protocol in value.split(",") or value == "all")
        case "--dport" | "--dports" | "--ctorigdstport" | "--destination-port":
            return _sure(any(_in_range(packet.port, one) for one in value.split(",")))
        case "--ctstate" | "--state":
            states = set(value.split(","))
            return _sure("NEW" in states or (packet.translated and "DNAT" in states))
        case "--ctstatus":
            return _sure("DNAT" in value.split(",")) if packet.translated else Match.NO
        case "--ctdir":
            return _sure(value == "ORIGINAL")
        case "--syn":
            return Match.YES
        case "--tcp-flags" if len(values) > 1:
            mask, wanted = (_flags(one) for one in values[:2])
            return _sure(mask & {"SYN"} == wanted)
        case "--dst-type":
            return _sure(("LOCAL" in value.split(",")) is not packet.translated)
        case "--mark" if packet.marks:
            return _marked(value, packet.marks)
        case "-i":
            inner = all(one.rstrip("+").startswith(CONTAINERS) for one in value.split(","))
            return Match.NO if inner else Match.MAYBE
        case "-o":
            return _sure(bool(packet.out) and any(_interface(packet.out, one) for one in value.split(",")))
        case "-d":
            return _destination(value, packet.destination)
        case "-s":
            return _source(value)
    return Match.MAYBE


def _sure(yes: bool) -> Match:
    return Match.YES if yes else Match.NO


def _in_range(port: int, text: str) -> bool:
    first, colon, last = text.partition(":")
    try:
        return int(first or 0) <= port <= (int(last or 65_535) if colon else int(first))
    except ValueError:
        return True  # a name from /etc/services


def _flags(text: str) -> set[str]:
    return set(FLAGS) if text == "ALL" else set(text.split(",")) - {"NONE"}


def _marked(text: str, ours: int) -> Match:
    """Only the bits that we set are known."""
    value, _, mask = text.partition("/")
    try:
        wanted, looked_at = int(value, 0), int(mask or "0xffffffff", 0)
    except ValueError:
        return Match.MAYBE
    return Match.MAYBE if looked_at & ~ours else _sure(ours & looked_at == wanted)


def _interface(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _destination(text: str, destination: str) -> Match:
    try:
        network = ip_network(text, strict=False)
        if destination:
            return _sure(ip_address(destination) in network)
    except ValueError:
        return Match.MAYBE
    if network.prefixlen == 0:
        return Match.YES
    return Match.NO if network.is_loopback or network.is_multicast else Match.MAYBE


def _source(text: str) -> Match:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return Match.MAYBE
    if network.prefixlen == 0:
        return Match.YES
    return Match.NO if network.is_loopback else Match.MAYBE
