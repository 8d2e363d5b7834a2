"""What is seen of Docker, the other nodes and the sidecars, judged. Pure; see `mesh.telemetry.doctor`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.parsing import is_int, parse_int
from mesh.telemetry.doctor import (
    AGE_WARN,
    CERTIFICATE_WARN,
    ENGINE_MIN,
    NAMED_MAX,
    SKEW_FAIL,
    SKEW_WARN,
    Check,
    fail,
    ok,
    warn,
)


@dataclass(frozen=True, slots=True)
class EngineSeen:
    version: str
    swarm: str  # active, inactive, pending, error, locked
    manager: bool = False
    node: str = ""


def no_engine(why: str) -> Check:
    return fail(
        "Docker",
        why,
        "start dockerd, and bind its socket into the sidecar as deploy/stack.yml does; what depends on it "
        "was left out here",
    )


def engine(seen: EngineSeen) -> Check:
    name, role = "Docker", "manager" if seen.manager else "worker"
    if seen.swarm != "active":
        return fail(
            name,
            f"{seen.version}, but this node is in no Swarm (state: {seen.swarm or 'unknown'})",
            "docker swarm init, or docker swarm join",
        )
    if _version(seen.version) < ENGINE_MIN:
        least = ".".join(map(str, ENGINE_MIN))
        return warn(name, f"{seen.version}, {role}", f"update Docker: nothing older than {least} is tested")
    return ok(name, f"{seen.version}, {role}")


VERSION_MAX = 1_000_000  # of a part of an engine's version


def _version(text: str) -> tuple[int, ...]:
    """What cannot be read is taken as new: development builds."""
    parts = text.split(".")[:2]
    if not all(is_int(part, 0, VERSION_MAX) for part in parts):
        return ENGINE_MIN
    return tuple(parse_int(part, 0, VERSION_MAX) for part in parts)


def no_certificate(why: str) -> Check:
    """It is expired, encrypted, or not there."""
    return fail(
        "certificate",
        why,
        "bind /var/lib/docker/swarm/certificates into the sidecar as deploy/stack.yml does; without it this "
        "node neither serves nor follows the catalogue",
    )


def certificates(role: str, valid_for: float) -> Check:
    """`valid_for`: seconds from now."""
    name, days = "certificate", valid_for / 86_400
    remedy = "docker swarm ca --rotate on a manager, and look at dockerd's log why it is not renewed"
    if valid_for <= 0:
        return fail(name, f"{role}, expired {-days:.1f} days ago", remedy)
    if valid_for < CERTIFICATE_WARN:
        return warn(name, f"{role}, valid for {days:.1f} days", remedy)
    return ok(name, f"{role}, valid for {days:.0f} days")


@dataclass(frozen=True, slots=True)
class Peer:
    """Another node, as it could be reached. "" of a fault: reached; None: not tried."""

    name: str
    manager: bool = False
    down: bool = False  # as the cluster says
    gossip: str | None = None  # 7946/tcp
    control: str | None = None  # 2377/tcp, managers only
    feed: str | None = None  # 9182/tcp, managers only
    version: str = ""  # of its sidecar
    skew: float | None = None  # seconds that its clock is ahead of ours


def gossip(peers: Sequence[Peer]) -> Check:
    return _reached(
        "gossip 7946",
        {one.name: one.gossip for one in peers if not one.down},
        "open 7946/tcp and 7946/udp between all nodes; without it overlay networks lose tasks",
    )


def control(peers: Sequence[Peer]) -> Check:
    return _reached(
        "managers 2377",
        {one.name: one.control for one in peers if one.manager and not one.down},
        "open 2377/tcp from this node to every manager; without it this node gets no orders",
        "no other manager",
    )


def feed_ports(peers: Sequence[Peer], port: int) -> Check:
    return _reached(
        f"managers' sidecars {port}",
        {one.name: one.feed for one in peers if one.manager and not one.down},
        f"open {port}/tcp from every node to every manager, and see that the sidecar runs there",
        "no other manager",
    )


def _reached(name: str, tried: Mapping[str, str | None], remedy: str, nobody: str = "no other node") -> Check:
    faults = {peer: why for peer, why in tried.items() if why}
    reached = [peer for peer, why in tried.items() if why == ""]
    if faults:
        shown = "; ".join(f"{peer}: {why}" for peer, why in list(faults.items())[:NAMED_MAX])
        return fail(name, f"{len(faults)} of {len(faults) + len(reached)} not reached: {shown}", remedy)
    return ok(name, f"reached: {', '.join(reached[:NAMED_MAX])}" if reached else nobody)


def clocks(peers: Sequence[Peer]) -> Check:
    known = {one.name: one.skew for one in peers if one.skew is not None}
    if not known:
        return ok("clocks", "no other sidecar to compare with")
    name, worst = max(known.items(), key=lambda item: abs(item[1]))
    seen = f"{name} differs by {abs(worst):.0f} s"
    remedy = "run an NTP client on all nodes (timedatectl, chronyc tracking)"
    if abs(worst) >= SKEW_FAIL:
        return fail("clocks", f"{seen}: certificates may be refused", remedy)
    return (
        warn("clocks", seen, remedy)
        if abs(worst) >= SKEW_WARN
        else ok("clocks", f"alike on {len(known)} other nodes")
    )


def versions(own: str, peers: Sequence[Peer]) -> Check:
    up = [one for one in peers if not one.down]
    missing = [one.name for one in up if not one.version]
    other = {one.name: one.version for one in up if one.version and one.version != own}
    name = "sidecars"
    if missing:
        return warn(
            name,
            f"none answers on {', '.join(missing[:NAMED_MAX])}",
            "docker service ps mesh_sidecar tells why; if one runs there, open 9180/tcp between nodes",
        )
    if other:
        shown = ", ".join(f"{node} {version}" for node, version in list(other.items())[:NAMED_MAX])
        return warn(
            name, f"here {own}, but {shown}", "wait for the update to end, or: docker stack deploy again"
        )
    return ok(name, f"version {own}" + (f", as on {len(up)} other nodes" if up else ""))


@dataclass(frozen=True, slots=True)
class SidecarSeen:
    """What the sidecar of this node says of itself."""

    connected: bool
    age: float | None  # seconds since its catalogue was confirmed
    error: str = ""
    role: str = ""
    following: str = ""  # the manager whose feed it follows
    serving: bool = False
    captured: int = 0
    faults: tuple[str, ...] = ()  # containers that should be captured and are not, and why
    problems: tuple[str, ...] = ()


NO_SIDECAR = warn(
    "sidecar",
    "none answers here: Docker's own resolver and routing mesh serve alone",
    "docker stack deploy -c deploy/stack.yml mesh; if it is deployed, see docker service ps mesh_sidecar",
)


def catalogue(seen: SidecarSeen) -> Check:
    name = "catalogue"
    if seen.age is None:
        return fail(name, f"never read: {seen.error or 'no reason known'}", "look at the sidecar's log")
    age = f"confirmed {seen.age:.0f} s ago"
    if seen.role == "worker" and not seen.following:
        return fail(
            name,
            f"no manager's sidecar can be followed ({seen.error or 'no reason known'}); {age}",
            "see that a sidecar runs on a manager, and that 9182/tcp to it is open",
        )
    if not seen.connected or seen.age > AGE_WARN:
        return warn(
            name,
            f"{age}; last error: {seen.error or 'none'}",
            "see whether the managers have a quorum: docker node ls",
        )
    via = f", following {seen.following}" if seen.following else ", served to workers" if seen.serving else ""
    return ok(name, age + via)


def capture(seen: SidecarSeen) -> Check:
    if not seen.faults:
        return ok("captured containers", f"{seen.captured}, and no fault")
    return fail(
        "captured containers",
        "; ".join(seen.faults[:NAMED_MAX]),
        "mend what the kernel or Docker complains of; the sidecar tries again for minutes, and then when the "
        "container changes",
    )


def problems(seen: SidecarSeen) -> Check:
    if not seen.problems:
        return ok("configuration and labels", "no problem")
    more = len(seen.problems) - NAMED_MAX
    shown = "; ".join(seen.problems[:NAMED_MAX]) + (f"; and {more} more" if more > 0 else "")
    return warn("configuration and labels", shown, "correct what is named; meanwhile defaults are used")
