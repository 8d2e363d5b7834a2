"""The filter table of iptables as text, and the changes that put our rules where they belong. Pure.

DOCKER-USER is the chain that Docker keeps for the operator and never flushes. Docker asks it first for all
that is forwarded. What we let pass asks it as well, in the same way:

    FORWARD   a jump to MESH-FORWARD, directly ahead of Docker's jump to DOCKER-USER
    INPUT     a jump to MESH-INPUT, ahead of all else, for marked packets
    (`mesh.kernel.firewall.listener_rules`)

    MESH-FORWARD: DOCKER-USER, then ACCEPT          MESH-INPUT: take off the mark, DOCKER-USER, back to INPUT

Both chains jump to DOCKER-USER themselves. So the operator's rules come before our ACCEPT wherever in
FORWARD our jump is at that moment: Docker takes its own jump out and puts it in again at the top whenever
it is restarted. Only connections that were translated (DNAT) may pass, only to and from the ingress
namespace.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

USER_CHAIN = "DOCKER-USER"
FORWARD_CHAIN, INPUT_CHAIN = "MESH-FORWARD", "MESH-INPUT"
COMMENT = "mesh"

Words = tuple[str, ...]


class Family(IntEnum):
    IPV4 = 4
    IPV6 = 6


@dataclass(frozen=True, slots=True)
class Rule:
    """`words`: what follows `-A CHAIN`. `text`: the whole line, as iptables-save prints it."""

    words: Words
    text: str = ""

    @property
    def target(self) -> str:
        """The chain or verdict of -j or -g; "" when it only counts."""
        return next((b for a, b in pairwise(self.words) if a in ("-j", "-g")), "")

    @property
    def ours(self) -> bool:
        return any(a == "--comment" and b == COMMENT for a, b in pairwise(self.words))


@dataclass(frozen=True, slots=True)
class FilterTable:
    """One back end's filter table. `policies` of built-in chains, "-" of others. Not `exact`: read from what
    nft shows, since it has rules that iptables cannot show; matches may be left out then."""

    policies: dict[str, str] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)  # chain → in order
    exact: bool = True

    @property
    def asks_operator(self) -> bool:
        """Is there a DOCKER-USER?"""
        return USER_CHAIN in self.policies

    @property
    def forwards(self) -> bool:
        """Does FORWARD let pass what no rule decides?"""
        return self.policies.get("FORWARD", "ACCEPT") != "DROP"


def parse(saved: str) -> FilterTable:
    """What `iptables-save -t filter` prints. A line that cannot be read is left out."""
    table = FilterTable()
    for line in saved.splitlines():
        if line.startswith(":"):
            chain, policy, *_ = *line[1:].split(), "-"
            table.policies[chain] = policy
        elif line.startswith("-A "):
            try:
                _, chain, *words = shlex.split(line)
            except ValueError:
                continue
            table.rules.setdefault(chain, []).append(Rule(tuple(words), line))
    return table


@dataclass(frozen=True, slots=True)
class _Part:
    """A chain of ours and the jumps that lead to it."""

    chain: str
    hook: str  # the built-in chain that has the jumps
    body: tuple[Words, ...] = ()  # () for none of all that
    jumps: tuple[Words, ...] = ()
    address: str = ""  # that each of the jumps names


def plan_forward(table: FilterTable, sandbox: str, bridge: str) -> str:
    """The script that lets redirected connections pass to the address behind the bridge, and their answers
    back; "" when it is so already. The table has a DOCKER-USER."""
    return _plan(
        table,
        _Part(
            FORWARD_CHAIN,
            "FORWARD",
            (_rule(f"-j {USER_CHAIN}"), _rule("-j ACCEPT")),
            (
                _rule(f"-d {sandbox}/32 -o {bridge} -m conntrack --ctstate DNAT", f"-j {FORWARD_CHAIN}"),
                _rule(
                    f"-s {sandbox}/32 -i {bridge} -m conntrack --ctstate DNAT --ctdir REPLY",
                    f"-j {FORWARD_CHAIN}",
                ),
            ),
            sandbox,
        ),
    )


def plan_input(table: FilterTable, mark: int) -> str:
    """The script that has packets with the mark asked of DOCKER-USER; "" when it is so already."""
    return _plan(
        table,
        _Part(
            INPUT_CHAIN,
            "INPUT",
            (_rule(f"-j MARK --set-xmark 0x0/{mark:#x}"), _rule(f"-j {USER_CHAIN}")),
            (_rule(f"-m mark --mark {mark:#x}/{mark:#x}", f"-j {INPUT_CHAIN}"),),
        ),
    )


def plan_without_forward(table: FilterTable) -> str:
    """The script that takes out what `plan_forward` and older versions have put in; "" for nothing."""
    return _plan(table, _Part(FORWARD_CHAIN, "FORWARD"))


def plan_without_input(table: FilterTable) -> str:
    return _plan(table, _Part(INPUT_CHAIN, "INPUT"))


def removals(script: str) -> int:
    """How many jumps and old rules a script takes out."""
    return sum(line.startswith("-D ") for line in script.splitlines())


def _plan(table: FilterTable, part: _Part) -> str:
    lines = list[str]()
    if part.body and not _alike(table.rules.get(part.chain, ()), part.body, table.exact):
        lines += [f":{part.chain} - [0:0]", *(f"-A {part.chain} {shlex.join(one)}" for one in part.body)]
    lines += _jump_changes(table, part)
    if not part.body and part.chain in table.policies:
        lines += [f"-F {part.chain}", f"-X {part.chain}"]
    if part.hook == "FORWARD":  # where versions before had their rule
        old = (one for one in table.rules.get(USER_CHAIN, ()) if one.ours)
        lines += [f"-D {USER_CHAIN} {shlex.join(one.words)}" for one in old]
    return "".join(f"{line}\n" for line in ("*filter", *lines, "COMMIT")) if lines else ""


def _jump_changes(table: FilterTable, part: _Part) -> list[str]:
    """All of ours in the hook's chain are taken out and put in anew, unless they are as they should be."""
    present = table.rules.get(part.hook, [])
    others = [one for one in present if not one.ours and one.target != part.chain]
    at = _place(others) if part.hook == "FORWARD" else 0
    made = [f"-I {part.hook} {at + number} {shlex.join(one)}" for number, one in enumerate(part.jumps, 1)]
    if not table.exact:
        return _inexact_changes(present, part, at, made)
    wanted = [*(_normal(one.words) for one in others[:at]), *map(_normal, part.jumps)]
    wanted += [_normal(one.words) for one in others[at:]]
    if [_normal(one.words) for one in present] == wanted:
        return []
    gone = [one for one in present if one.ours or one.target == part.chain]
    return [*(f"-D {part.hook} {shlex.join(one.words)}" for one in gone), *made]


def _inexact_changes(present: Sequence[Rule], part: _Part, at: int, made: list[str]) -> list[str]:
    """The same by numbers, for jumps of which only the target and the address are known."""
    mine = [number for number, one in enumerate(present) if one.target == part.chain]
    named = all(_names(present[number], part.address) for number in mine)
    if named and mine == list(range(at, at + len(part.jumps))):
        return []
    return [*(f"-D {part.hook} {number + 1}" for number in reversed(mine)), *made]


def _names(rule: Rule, address: str) -> bool:
    return not address or address in (word.partition("/")[0] for word in rule.words)


def _place(others: Sequence[Rule]) -> int:
    """Where in FORWARD: ahead of Docker's jump. Without one, after all that the operator has put there."""
    return next((at for at, one in enumerate(others) if one.target == USER_CHAIN), len(others))


def _rule(match: str, target: str = "") -> Words:
    return (
        *(match.split() if target else ()),
        "-m",
        "comment",
        "--comment",
        COMMENT,
        *(target or match).split(),
    )


def _alike(present: Sequence[Rule], wanted: Sequence[Words], exact: bool) -> bool:
    if not exact:
        leads = [[one.target for one in rules] for rules in (present, map(Rule, wanted))]
        return len({tuple(one for one in targets if one not in ("", "MARK")) for targets in leads}) == 1
    return [_normal(one.words) for one in present] == [_normal(one) for one in wanted]


def _normal(words: Words) -> list[str]:
    """iptables lists a rule's matches in an order of its own."""
    return sorted(words)
