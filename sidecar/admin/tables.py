"""JSON of the admin API → sections with rows, and those → text. The status page shows the same sections.

Pure: whatever a table shows was in the document.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from tabulate import tabulate

Document: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """A titled table; without headers, a list of facts. `empty`: what is said when there are no rows."""

    title: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    empty: str = "none"


def as_json(document: Document) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)


def as_text(sections: Iterable[Section]) -> str:
    return "\n\n".join(map(_text, sections))


def status(document: Document) -> list[Section]:
    return [
        Section("", (), _facts(document)),
        Section("Listeners", ("NAME", "ADDRESS", "STATE"), [_listener(x) for x in document["listeners"]]),
        Section(
            "Ports", ("PORT", "SERVICE", "MODE", "ENDPOINTS", "NOTE"), [_port(p) for p in document["ports"]]
        ),
        Section(
            "Containers", ("ID", "NAME", "CAPTURED", "NOTE"), [_container(c) for c in document["containers"]]
        ),
        Section("Problems", (), [(problem,) for problem in document["problems"]]),
    ]


def services(document: Document) -> list[Section]:
    rows = [
        (
            name,
            service.get("mode", "vip"),
            _join(f"{n}={m['vip']}" for n, m in service.get("networks", {}).items() if m.get("vip")),
            _join(_published(port) for port in service.get("ports", [])),
            _serving(service.get("tasks", [])),
        )
        for name, service in document["services"].items()
    ]
    return [Section("", ("SERVICE", "MODE", "VIPS", "PORTS", "ENDPOINTS"), rows, "no services")]


def endpoints(document: Document) -> list[Section]:
    left_out = "left_out" in document
    rows = [
        (
            task["name"],
            task.get("node", ""),
            task["state"],
            _join(f"{network}={address}" for network, address in task.get("addresses", {}).items()),
            *([_why_left_out(document, task)] if left_out else []),
        )
        for service in document["services"].values()
        for task in service.get("tasks", [])
    ]
    titles = ("TASK", "NODE", "STATE", "ADDRESSES", *(["FROM THIS NODE"] if left_out else []))
    return [Section("", titles, rows, "no tasks")]


def _why_left_out(document: Document, task: Document) -> str:
    addresses = task.get("addresses", {}).values()
    of_task = {
        why for endpoint, why in document["left_out"].items() if endpoint.rpartition(":")[0] in addresses
    }
    return "; ".join(sorted(of_task))


def routes(document: Document) -> list[Section]:
    rows = [
        (
            route["name"],
            route["rule"],
            _join(route["entrypoints"]),
            str(route["priority"]),
            _join(route["middlewares"]),
            route["service"],
            _join(route["endpoints"]),
        )
        for route in document["routes"]
    ]
    headers = ("ROUTER", "RULE", "ENTRY POINTS", "PRIORITY", "MIDDLEWARES", "SERVICE", "ENDPOINTS")
    return [Section("", headers, rows, "no routers")]


def networks(document: Document) -> list[Section]:
    rows = [
        (
            name,
            _join([subnet] if isinstance(subnet := network.get("subnet", []), str) else subnet),
            network.get("driver", "overlay"),
            network.get("scope", "swarm"),
            _join(flag for flag in ("internal", "attachable", "ingress") if network.get(flag)),
        )
        for name, network in document["networks"].items()
    ]
    return [Section("", ("NETWORK", "SUBNET", "DRIVER", "SCOPE", "FLAGS"), rows, "no networks")]


def nodes(document: Document) -> list[Section]:
    rows = [
        (
            name,
            node.get("address", ""),
            node.get("role", "worker"),
            node.get("availability", "active"),
            node.get("state", "ready"),
        )
        for name, node in document["nodes"].items()
    ]
    return [Section("", ("NODE", "ADDRESS", "ROLE", "AVAILABILITY", "STATE"), rows, "no nodes")]


def resolution(document: Document) -> list[Section]:
    facts = [
        ("asker", f"{document['asker']} on {_join(document['networks']) or 'no network'}"),
        ("answer", f"{document['rcode']}" + (f" ({document['source']})" if document["source"] else "")),
    ]
    sections = [
        Section("", (), facts),
        Section("", RECORD, _records(document["answers"]), "no records"),
        Section("Why", (), [(reason,) for reason in document["why"]]),
    ]
    if docker := document["docker"]:
        title = f"Docker's own resolver says {docker['rcode']}"
        sections.append(Section(title, RECORD, _records(docker["answers"]), "no records"))
    return sections


def ports_explained(document: Document) -> list[Section]:
    return [section for path in document["ports"] for section in _port_explained(path)]


def service_explained(document: Document) -> list[Section]:
    facts: list[tuple[str, ...]] = [("service", document["service"]), ("as seen from", document["node"])]
    sections = [Section("", (), facts + [("note", note) for note in document["notes"]])]
    for network in document["networks"]:
        sections += _network_explained(network)
    for path in document["ports"]:
        sections += _port_explained({**path, "unused": []})
    return sections + _unused(document)


def http_explained(document: Document) -> list[Section]:
    asked = f"{document['method']} {document['host']}{document['path']}"
    sections = [Section("", (), [("request", asked)])]
    for at in document["entrypoints"]:
        facts = [
            ("router", at["router"]),
            ("rule", at["rule"]),
            ("priority", str(at["priority"] or "")),
            ("middlewares", ", ".join(at["middlewares"])),
            ("service", at["service"]),
            ("reached on", at["network"]),
            ("answer", at["note"]),
        ]
        title = f"Entry point {at['entrypoint']}"
        sections.append(Section(title, (), [fact for fact in facts if fact[1]]))
        if at["endpoints"]:
            rows = [
                (
                    one["address"],
                    str(one["requests"]),
                    _condition(one),
                )
                for one in at["endpoints"]
            ]
            sections.append(Section("", ("ENDPOINT", "REQUESTS", "STATE"), rows))
    return sections


def _condition(endpoint: Document) -> str:
    if endpoint["unwell"]:
        return f"does not pass its check ({endpoint['unwell']})"
    if endpoint["ejected_for"]:
        return f"ejected for {endpoint['ejected_for']} s ({endpoint['why']})"
    return "ok"


def diagnosis(document: Document) -> list[Section]:
    checks = document["checks"]
    rows = [(_verdict(one), one["name"], one["seen"]) for one in checks]
    remedies = [(one["name"], one["remedy"]) for one in checks if one["remedy"]]
    return [
        Section("", ("", "CHECK", "SEEN"), rows),
        Section("What to do", (), remedies, "nothing"),
    ]


def _verdict(check: Document) -> str:
    verdict = str(check["verdict"])
    return verdict if verdict == "ok" else verdict.upper()


def _port_explained(path: Document) -> list[Section]:
    policy = f", {path['policy']}" if path["policy"] else ""
    title = f"Port {path['port']} of {path['service']}, on {path['node']}: {path['carrier']}{policy}"
    return [
        _without_empty(title, ("WHERE", "WHAT", "STATE", "NOTE"), [_hop(hop) for hop in path["hops"]]),
        _without_empty(
            "Tasks",
            ("TASK", "NODE", "ADDRESS", "SHARE", "CLIENT'S ADDRESS", "WAY BACK", "STATE", "NOTE"),
            [_task_explained(task) for task in path["tasks"]],
            "none gets connections",
        ),
        *_whys(path),
        *_unused(path),
        *([Section("Notes", (), _notes(path))] if path["notes"] else []),
    ]


def _network_explained(network: Document) -> list[Section]:
    vip = f": virtual IP {network['vip']}" if network["vip"] else ""
    hops = [_hop(hop) for hop in network["containers"]]
    if network["unseen"]:
        hops.append((f"{network['unseen']} more", "not looked at", "", ""))
    tasks = [(task["task"], task["node"], task["address"]) for task in network["tasks"]]
    sections = [
        Section(f"Network {network['network']}{vip}", (), [(network["how"],)]),
        Section("Tasks", ("TASK", "NODE", "ADDRESS"), tasks, "none gets connections"),
    ]
    if network["vip"]:
        headers = ("CONTAINER", "WHAT", "STATE", "NOTE")
        title = "From this node's containers"
        sections.append(_without_empty(title, headers, hops, "none is on this network"))
    return sections


def _whys(path: Document) -> list[Section]:
    """Each reason once, with the tasks that it holds for."""
    reasons = dict[str, list[str]]()
    for task in path["tasks"]:
        if task["why"]:
            reasons.setdefault(f"{task['client']}: {task['why']}", []).append(task["task"])
    everywhere = len(reasons) == 1 and len(path["tasks"]) == len(next(iter(reasons.values())))
    rows = [(why, "" if everywhere else _join(tasks)) for why, tasks in reasons.items()]
    return [_without_empty("Why the client's address is so", ("", ""), rows)] if rows else []


def _without_empty(
    title: str, headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], empty: str = "none"
) -> Section:
    """Only the columns in which a row says something."""
    if not rows:
        return Section(title, headers, rows, empty)
    used = [index for index, column in enumerate(zip(*rows, strict=True)) if any(column)]
    shown = tuple(headers[index] for index in used)
    kept = [tuple(row[index] for index in used) for row in rows]
    return Section(title, shown if any(shown) else (), kept, empty)


def _unused(document: Document) -> list[Section]:
    rows = [(one["task"], one["node"], one["state"], one["why"]) for one in document["unused"]]
    return [Section("Left out", ("TASK", "NODE", "STATE", "WHY"), rows)] if rows else []


def _notes(document: Document) -> list[tuple[str, ...]]:
    return [(note,) for note in document["notes"]]


def _hop(hop: Document) -> tuple[str, ...]:
    return hop["where"], hop["what"], _state(hop), hop["note"]


def _task_explained(task: Document) -> tuple[str, ...]:
    share = "" if task["share"] is None else f"{100 * task['share']:.0f}%"
    return (
        task["task"],
        task["node"],
        task["address"],
        share,
        task["client"],
        task["back"],
        _state(task),
        task["note"],
    )


def _state(part: Document) -> str:
    """What is not as it should be catches the eye."""
    state = str(part["state"])
    return state if state == "ok" else state.upper()


RECORD = ("NAME", "TTL", "TYPE", "DATA")


def _records(answers: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(one["name"], str(one["ttl"]), one["type"], one["data"]) for one in answers]


# The commands that show one document of the admin API: name → how its table is made.
VIEWS: Mapping[str, Callable[[Document], list[Section]]] = {
    "status": status,
    "services": services,
    "endpoints": endpoints,
    "networks": networks,
    "routes": routes,
    "nodes": nodes,
}


def _facts(document: Document) -> list[tuple[str, ...]]:
    facts: list[tuple[str, ...]] = [
        ("version", document["version"]),
        ("node", f"{document['node']} ({document['role']})" if document["role"] else document["node"]),
        ("catalogue", f"version {document['catalog_version']}"),
        ("source", _source(document["source"])),
    ]
    if document["feed"] is not None:
        facts.append(("feed", _feed(document["feed"])))
    return facts


def _source(source: Document) -> str:
    state = "connected" if source["connected"] else "NOT CONNECTED"
    age = "never confirmed" if source["age"] is None else f"confirmed {duration(source['age'])} ago"
    error = f"; last error: {source['last_error']}" if source["last_error"] else ""
    return f"{source['kind']}, {state}, {age}{error}"


def _feed(feed: Document) -> str:
    if feed["serving"]:
        state = f"serving, workers: {feed['clients']}, refused: {feed['refused']}"
    else:
        state = f"following {feed['following']}" if feed["following"] else "NO MANAGER REACHABLE"
    return state + (f"; last error: {feed['last_error']}" if feed["last_error"] else "")


def _listener(listener: Document) -> tuple[str, ...]:
    state = f"NOT BOUND: {listener['error']}" if listener["error"] else "listening"
    return listener["name"], listener["address"], state


def _port(port: Document) -> tuple[str, ...]:
    endpoints_ = f"{port['serving']}/{port['total']}"
    number = f"{port['published']}/{port['protocol']}"
    return number, port["service"], port["mode"], endpoints_, port["note"]


def _container(container: Document) -> tuple[str, ...]:
    captured = "yes" if container["captured"] else "no"
    return container["id"][:12], container["name"], captured, container["reason"]


def _published(port: Document) -> str:
    host = " (host)" if port.get("mode") == "host" else ""
    return f"{port['published']}->{port['target']}/{port['protocol']}{host}"


def _serving(tasks: Sequence[Document]) -> str:
    return f"{sum(task['state'] == 'running' for task in tasks)}/{len(tasks)}"


def duration(seconds: float) -> str:
    """0.4s, 12s, 3m, 5h, 2d: as exact as people read it."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    for unit, length, limit in (("s", 1, 120), ("m", 60, 7200), ("h", 3600, 172_800)):
        if seconds < limit:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds / 86_400:.0f}d"


def _join(words: Iterable[str]) -> str:
    return " ".join(words)


def _clean(text: str) -> str:
    """Errors quote other programs; nothing of theirs may move the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _text(section: Section) -> str:
    if not section.rows:
        return f"{section.title}: {section.empty}" if section.title else section.empty
    rows = [tuple(map(_clean, row)) for row in section.rows]
    body = tabulate(rows, section.headers, tablefmt="plain", disable_numparse=True)
    return f"{section.title}\n{body}" if section.title else body
