"""What a node and its cluster are to be like, judged from what was seen; each verdict with a remedy. Pure.

FAIL: something does not work, or will not. WARN: it works, and somebody should know. What could not be looked
at is never OK.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

VXLAN_OVERHEAD = 50  # bytes that VXLAN over IPv4 takes of each packet
CONNTRACK_WARN, CONNTRACK_FAIL = 0.75, 0.95  # of the table
DESCRIPTORS_MIN = 65_536  # a relayed connection takes two, a bulk one six
CERTIFICATE_WARN = 3 * 86_400.0  # seconds; Swarm renews long before
SKEW_WARN, SKEW_FAIL = 5.0, 300.0  # seconds
AGE_WARN = 60.0  # seconds since the catalogue was last confirmed
ENGINE_MIN = (20, 10)
NAMED_MAX = 6  # things of a kind that one line names


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Verdict
    seen: str
    remedy: str = ""


def ok(name: str, seen: str) -> Check:
    return Check(name, Verdict.OK, seen)


def warn(name: str, seen: str, remedy: str) -> Check:
    return Check(name, Verdict.WARN, seen, remedy)


def fail(name: str, seen: str, remedy: str) -> Check:
    return Check(name, Verdict.FAIL, seen, remedy)


def unseen(name: str, why: str) -> Check:
    """It could not be looked at."""
    return warn(
        name,
        f"could not be looked at: {why}",
        "run this as root on the node, or in the sidecar's container: docker exec CONTAINER mesh doctor",
    )


def failed(checks: Iterable[Check]) -> bool:
    return any(one.verdict is Verdict.FAIL for one in checks)


# --- the kernel ---------------------------------------------------------------------------------------------


def features(tried: Mapping[str, str]) -> Check:
    """`tried`: feature → why it does not work, "" when it does."""
    broken = {name: why for name, why in tried.items() if why}
    if not broken:
        return ok("kernel features", f"all {len(tried)} that were tried work")
    first = next(iter(broken.values()))
    return fail(
        "kernel features",
        f"do not work: {_some(broken)} ({first})",
        "use a kernel of 5.10 or newer with nf_tables, nf_nat, nf_conntrack and nf_conntrack_netlink, and "
        "see that its modules can be loaded (modprobe nf_tables nft_nat nft_numgen nft_hash nft_fib_ipv4)",
    )


def ipvs(present: bool) -> Check:
    if present:
        seen = "present: Docker's own virtual IPs and routing mesh work; our rules stand before them"
    else:
        seen = "absent: virtual IPs and published ports work through the sidecar only"
    return ok("IPVS", seen)


def conntrack(count: int, limit: int) -> Check:
    share = count / limit if limit else 1.0
    seen = f"{count} of {limit} entries ({100 * share:.0f}%)"
    remedy = "raise net.netfilter.nf_conntrack_max, or find out who opens so many connections (conntrack -L)"
    if share >= CONNTRACK_FAIL:
        return fail("conntrack table", f"{seen}: new connections are dropped, or soon will be", remedy)
    return warn("conntrack table", seen, remedy) if share >= CONNTRACK_WARN else ok("conntrack table", seen)


def descriptors(limit: int) -> Check:
    if limit >= DESCRIPTORS_MIN:
        return ok("file descriptors", f"limit {limit}")
    return warn(
        "file descriptors",
        f"limit {limit}: relayed connections take two to six each",
        f"give the sidecar a limit of {DESCRIPTORS_MIN} or more: LimitNOFILE of docker.service, or "
        '"default-ulimits" in daemon.json',
    )


# --- the host's network -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DoctorSettings:
    """Of the host; None: there is no such thing here."""

    ip_forward: int
    route_localnet: int | None = None  # of docker_gwbridge
    rp_filter: Mapping[str, int] | None = None  # of interfaces with an address, in force
    sandbox_forwarding: Mapping[str, int] | None = None  # of the ingress namespace's interfaces
    task_rp_filter: Mapping[str, int] | None = None  # of tasks' ingress interfaces, by container
    broken_ways: Sequence[str] = ()  # containers whose answers to outside clients get lost


def forwarding(seen: DoctorSettings) -> Check:
    name = "forwarding"
    if not seen.ip_forward:
        return fail(
            name,
            "net.ipv4.ip_forward is 0 on the host",
            "sysctl -w net.ipv4.ip_forward=1, and restart dockerd",
        )
    off = sorted(one for one, value in (seen.sandbox_forwarding or {}).items() if not value)
    if off:
        return fail(
            name,
            f"off on {_some(off)} of the ingress namespace: published ports do not answer",
            "see that the sidecar runs (mesh status): it turns this on",
        )
    if seen.sandbox_forwarding is None:
        return ok(name, "on; there is no ingress namespace (yet)")
    return ok(name, "on, on the host and in the ingress namespace")


def localhost(seen: DoctorSettings) -> Check:
    name = "published ports on 127.0.0.1"
    if seen.route_localnet is None:
        return ok(name, "no docker_gwbridge here (yet)")
    if seen.route_localnet:
        return ok(name, "route_localnet is on for docker_gwbridge")
    return warn(
        name,
        "route_localnet is off for docker_gwbridge: 127.0.0.1:PORT does not answer on this node",
        "see that the sidecar runs (mesh status): it turns this on with the first published port",
    )


def ways_back(seen: DoctorSettings) -> Check:
    """Tasks answer outside clients through the node that these have chosen."""
    name = "way back to clients"
    if seen.broken_ways:
        return fail(
            name,
            f"the rules are gone in {_some(seen.broken_ways)}: answers to clients outside get lost",
            "find out who flushes rules there; a new task mends it: docker service update --force SERVICE",
        )
    prepared = len(seen.task_rp_filter or {})
    return ok(name, f"prepared in {prepared} containers" if prepared else "no task here needs one")


STRICT = 1


def reverse_paths(seen: DoctorSettings) -> Check:
    name = "reverse path filter"
    strict_tasks = sorted(one for one, value in (seen.task_rp_filter or {}).items() if value == STRICT)
    if strict_tasks:
        return fail(
            name,
            f"strict in {_some(strict_tasks)}: connections that keep the client's address are dropped there",
            "somebody has changed it after the sidecar did: find out who; a new task has it right "
            "(docker service update --force SERVICE)",
        )
    front = {
        one: v for one, v in (seen.rp_filter or {}).items() if one not in ("lo", "docker_gwbridge", "all")
    }
    strict = sorted(
        one for one, value in front.items() if value == STRICT and not one.startswith(("docker", "br-"))
    )
    if len(strict) > 1:
        return warn(
            name,
            f"strict on {_some(strict)}: a client whose answers leave by another interface is dropped",
            "set net.ipv4.conf.INTERFACE.rp_filter=2 if clients come in by more than one of them",
        )
    return ok(name, f"strict on {strict[0]} only" if strict else "not strict")


@dataclass(frozen=True, slots=True)
class Dropped:
    """A rule of the node's that keeps clients out. `everybody`: all of them, else some."""

    rule: str
    everybody: bool
    ports: tuple[str, ...]  # "80/tcp of web"

    @property
    def said(self) -> str:
        whom = "every client" if self.everybody else "some clients"
        return f"'{self.rule}' keeps {whom} from {_some(self.ports)}"

    @property
    def operators(self) -> bool:
        """Of the chain that is asked about published ports: what it drops is meant to be dropped."""
        return "DOCKER-USER" in self.rule


@dataclass(frozen=True, slots=True)
class Passage:
    """Docker's FORWARD chain, and whether it lets published ports through."""

    published: bool  # are there ports for the kernel to carry?
    allowed: bool = False
    fault: str = ""
    dropped: Sequence[Dropped] = ()


def passage(seen: Passage) -> Check:
    name = "firewall"
    if seen.fault:
        return fail(
            name,
            seen.fault,
            "install iptables in the image or on the node; or accept connections to docker_gwbridge yourself",
        )
    if seen.published and not seen.allowed:
        return fail(
            name,
            "FORWARD has no rule of ours (any more): clients outside get no answer from published ports",
            "look again: the sidecar makes it anew in seconds; then see who removes it (a firewall script)",
        )
    if seen.dropped:
        return _dropping(name, seen.dropped)
    if not seen.published:
        return ok(name, "no published port needs to pass")
    return ok(name, "DOCKER-USER lets published ports through to the ingress namespace")


def _dropping(name: str, dropped: Sequence[Dropped]) -> Check:
    said = "; ".join(one.said for one in dropped[:NAMED_MAX])
    closing = [one for one in dropped if one.everybody and not one.operators]
    if not closing:
        return warn(
            name, said, "nothing, if that is as you want it; else change the rule on the node (iptables -S)"
        )
    port, _, protocol = closing[0].ports[0].split()[0].partition("/")
    return fail(
        name,
        said,
        f"open it in the node's own firewall: ufw allow {port}/{protocol}; or firewall-cmd --permanent "
        f"--add-port={port}/{protocol} and firewall-cmd --reload; or a rule ahead of that one, such as "
        f"iptables -I INPUT -p {protocol} --dport {port} -j ACCEPT",
    )


def mtu(underlay: str, underlay_mtu: int, overlays: Mapping[str, int]) -> Check:
    """`overlays`: where an overlay interface is → its MTU."""
    most = underlay_mtu - VXLAN_OVERHEAD
    large = sorted(one for one, value in overlays.items() if value > most)
    if large:
        return fail(
            "MTU",
            f"packets of {max(overlays[one] for one in large)} bytes in {_some(large)}, but {underlay} takes "
            f"{most} of them at most (VXLAN needs {VXLAN_OVERHEAD}): large replies hang",
            f"make the overlay network anew with --opt com.docker.network.driver.mtu={most}",
        )
    seen = f"{underlay} has {underlay_mtu}"
    return ok(
        "MTU", f"{seen}, overlays {_some(sorted({str(v) for v in overlays.values()}))}" if overlays else seen
    )


def vxlan(port: int, bound: bool, holder: str, overlays: bool) -> Check:
    """`holder`: the program that holds the port, "" when it is the kernel or nobody."""
    name = f"VXLAN {port}/udp"
    if holder:
        return fail(
            name,
            f"held by {holder}: overlay networks do not work between nodes",
            "stop it, or give the Swarm another port: docker swarm init --data-path-port",
        )
    if bound:
        return ok(name, "the kernel listens")  # its sockets are held by no process
    if overlays:
        return warn(name, "nobody listens, though there are overlay networks", "restart dockerd on this node")
    return ok(name, "not in use: no overlay network is here yet")


@dataclass(frozen=True, slots=True)
class PublishedPort:
    port: str  # 80/tcp
    service: str
    mode: str  # kernel | proxy | docker | taken
    note: str = ""
    listening: bool = False  # somebody has a socket on it on this node
    holder: str = ""  # who, where that can be seen


def listeners(ports: Sequence[PublishedPort], ipvs_present: bool) -> Check:
    name = "clashing listeners"
    taken = [f"{one.port} of {one.service}: {one.note}" for one in ports if one.mode == "taken"]
    if taken:
        return fail(
            name, "; ".join(taken[:NAMED_MAX]), "stop that program, or publish the service on another port"
        )
    shadowed = [
        f"{one.port} of {one.service}" + (f" ({one.holder})" if one.holder else "")
        for one in ports
        if one.mode == "kernel" and one.listening and not (ipvs_present and _docker(one.holder))
    ]
    if shadowed:
        return warn(
            name,
            f"another program listens on {_some(shadowed)}: it is not reached, the service is",
            "find it on the node (ss -lntup) and stop it, or publish the service on another port",
        )
    return ok(name, f"none on {len(ports)} published ports" if ports else "no published ports")


def _docker(holder: str) -> bool:
    """With IPVS its engine holds every published port itself; "" is one that cannot be seen from here."""
    return not holder or holder.startswith("dockerd")


def resolv_conf(file: str, nameservers: Sequence[str], configured: Sequence[str]) -> Check:
    name = "upstream resolvers"
    if configured:
        return ok(name, f"configured: {_some(configured)}")
    usable = [one for one in nameservers if one != "127.0.0.11"]
    if usable:
        return ok(name, f"{_some(usable)} ({file})")
    why = "names 127.0.0.11 only, which is Docker's inside containers" if nameservers else "names no server"
    return fail(
        name,
        f"{file} {why}: names outside the cluster are not found",
        "set dns.upstreams (MESH_DNS_UPSTREAMS)",
    )


def _some(words: Iterable[str]) -> str:
    found = list(words)
    more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return ", ".join(found[:NAMED_MAX]) + more
