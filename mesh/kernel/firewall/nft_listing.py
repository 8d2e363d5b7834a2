"""Rules that iptables does not show (firewalld's, the operator's own tables), put in its words. Pure.

From `nft --json list ruleset`, and from the same as text for how a rule is written. What has no counterpart
among the matches of iptables becomes one that may be met or not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.kernel.firewall.filter_table import FilterTable, Rule, Words

IPTABLES_TABLES = ("filter", "nat", "mangle", "raw", "security")  # of ip and ip6: the nft back end's
OURS = "mesh"
UNREAD: Words = ("--unread", "?")  # a match that may be met
VERDICTS = {"accept": "ACCEPT", "drop": "DROP", "reject": "REJECT", "return": "RETURN"}

# (kind, key) → the option of iptables
_FIELDS = {
    ("payload", "tcp dport"): "--dport",
    ("payload", "udp dport"): "--dport",
    ("payload", "th dport"): "--dport",
    ("payload", "ip saddr"): "-s",
    ("payload", "ip daddr"): "-d",
    ("payload", "ip protocol"): "-p",
    ("meta", "l4proto"): "-p",
    ("meta", "iifname"): "-i",
    ("meta", "oifname"): "-o",
    ("ct", "state"): "--ctstate",
    ("ct", "status"): "--ctstatus",
    ("ct", "proto-dst"): "--ctorigdstport",
}


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain that the kernel calls by itself. `hook`: input | forward | …"""

    hook: str
    family: str
    name: str
    table: FilterTable


def base_chains(listed: Mapping[str, Any], text: str) -> list[BaseChain]:
    """Of all tables but those of iptables and ours."""
    tables = _tables(listed, text)
    return [
        BaseChain(one["hook"], one["family"], one["name"], tables[one["family"], one["table"]])
        for kind, one in _items(listed)
        if kind == "chain" and "hook" in one and not _left_out(one)
    ]


def filter_table(listed: Mapping[str, Any], text: str) -> FilterTable:
    """A single table that was listed, of which iptables says that it cannot show it."""
    found = FilterTable(exact=False)
    for one in _tables(listed, text).values():
        found.policies.update(one.policies)
        found.rules.update(one.rules)
    return found


def _tables(listed: Mapping[str, Any], text: str) -> dict[tuple[str, str], FilterTable]:
    written = _written(text)
    tables: dict[tuple[str, str], FilterTable] = {}
    for kind, one in _items(listed):
        table = tables.setdefault((one["family"], one["table"]), FilterTable())
        if kind == "chain":
            table.policies[one["name"]] = VERDICTS.get(one.get("policy", ""), "-")
        else:
            place = f"{one['family']} {one['table']} {one['chain']}"
            line = f"{place}: {written.get((place, one['handle']), 'a rule')}"
            table.rules.setdefault(one["chain"], []).extend(
                Rule(words, line) for words in _rules(one.get("expr", ()))
            )
    return tables


def _items(listed: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Chains and rules."""
    for item in listed.get("nftables", ()):
        kind, one = next(iter(item.items()))
        if kind in ("chain", "rule"):
            yield kind, one


def _left_out(chain: Mapping[str, Any]) -> bool:
    """Ours, and those of iptables' nft back end."""
    backends = chain["family"] in ("ip", "ip6") and chain["table"] in IPTABLES_TABLES
    return chain["table"].startswith(OURS) or (backends and chain["name"].isupper())


def _written(text: str) -> dict[tuple[str, int], str]:
    """What `nft -a list ruleset` prints: (family, table and chain; handle) → the rule."""
    found, table, chain = dict[tuple[str, int], str](), "", ""
    for line in text.splitlines():
        rule, _, handle = line.strip().rpartition(" # handle ")
        words = rule.split()
        if words[:1] == ["table"] and rule.endswith("{"):
            table = " ".join(words[1:3])
        elif words[:1] == ["chain"] and rule.endswith("{"):
            chain = words[1]
        elif handle.isdecimal() and len(handle) < 10:
            found[(f"{table} {chain}", int(handle))] = rule
    return found


def _rules(expressions: Sequence[Any]) -> Iterator[Words]:
    """One rule of nftables; more where it has a map of verdicts."""
    words = list[str]()
    for one in expressions:
        kind, body = _only(one)
        if kind == "match":
            words += _match(body["left"], body["op"], body["right"])
        elif kind == "vmap":
            yield from _mapped(words, body)
        elif kind in VERDICTS or kind in ("jump", "goto"):
            yield (*words, *_verdict(kind, body))
            return
        elif kind in ("limit", "xt"):
            words += UNREAD
    yield tuple(words)


def _mapped(words: Sequence[str], body: Mapping[str, Any]) -> Iterator[Words]:
    data = body["data"]
    for pair in data["set"] if isinstance(data, dict) and "set" in data else ():
        key, verdict = pair
        kind, target = next(iter(verdict.items()))
        yield (*words, *_match(body["key"], "==", key), *_verdict(kind, target))


def _verdict(kind: str, body: Any) -> Words:
    if kind in ("jump", "goto"):
        return ("-j" if kind == "jump" else "-g", str(body["target"]))
    return ("-j", VERDICTS.get(kind, kind))


def _match(left: Any, operator: str, right: Any) -> Words:
    kind, key = _field(left)
    option, values = _FIELDS.get((kind, key), ""), _values(right)
    if not option or not values or operator not in ("==", "!=", "in"):
        return UNREAD
    if option in ("-s", "-d") and len(values) > 1:
        return UNREAD
    if option.startswith("--ctst"):
        values = [one.upper() for one in values]
    negated = ("!",) if operator == "!=" else ()
    protocol = key.split()[0] if option == "--dport" else ""
    transport = ("-p", protocol) if protocol in ("tcp", "udp") else ()
    return (*transport, *negated, option, ",".join(values).replace("*", "+"))


def _only(one: Any) -> tuple[str, Any]:
    """The single pair of an object; ("", None) of anything else."""
    return next(iter(one.items())) if isinstance(one, dict) and one else ("", None)


def _field(left: Any) -> tuple[str, str]:
    kind, body = _only(left)
    if not isinstance(body, dict):
        return kind, ""
    if kind == "payload":
        return kind, f"{body.get('protocol', '')} {body.get('field', '')}"
    return kind, str(body.get("key", ""))


def _values(right: Any) -> list[str]:
    """[] for what cannot be read: a set by its name, an operation."""
    if isinstance(right, str | int):
        return [] if str(right).startswith("@") else [str(right)]
    if isinstance(right, list):
        return [value for one in right for value in _values(one)]
    if isinstance(right, dict) and right:
        kind, body = next(iter(right.items()))
        if kind == "set":
            return _values(body)
        if kind == "range":
            return [f"{body[0]}:{body[1]}"]
        if kind == "prefix":
            return [f"{body['addr']}/{body['len']}"]
    return []
