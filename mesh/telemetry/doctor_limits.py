"""What the running sidecar may use, what it uses, and what that allows, judged. Pure; see `doctor`."""

from dataclasses import dataclass

from mesh.telemetry import doctor
from mesh.telemetry.doctor import DESCRIPTORS_MIN, Check, Verdict, fail, ok, warn

WARN_SHARE, FAIL_SHARE = 0.75, 0.9  # of a limit
DESCRIPTORS_PER_CONNECTION = 2  # of a client that is relayed: its own and the one to its task
DESCRIPTORS_PER_CONTAINER = 3  # two sockets for names, one for rules
MEMORY_MIN = 256 * 2**20  # bytes; 180 MB are in use with one process of each kind
# What an open connection may take. 2 KiB were measured without TLS (docs/performance.md); the rest is for TLS
# and for what is under way.
CONNECTION_BYTES = 8 * 2**10
PROCESSES_LEFT_MIN = 32  # and threads: that many are started when the sidecar starts its processes anew
CONNTRACK_MIN = 65_536  # entries; a kernel with 1 GB of memory has as many by default


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Of the sidecar's own process and its control group; the processes that relay and serve HTTP may have as
    many descriptors each. None: no limit, or it cannot be seen. Memory in bytes.

    `reserved`: the last descriptors, which clients do not get.
    """

    descriptors: int | None = None
    descriptors_max: int | None = None
    reserved: int = 0
    memory: int | None = None
    memory_max: int | None = None
    processes: int | None = None
    processes_max: int | None = None


def descriptors(seen: ProcessLimits) -> Check:
    name = "file descriptors"
    used, most = seen.descriptors or 0, seen.descriptors_max
    if most is None:
        return ok(name, f"{used} in use, without a limit")
    containers = max(0, most - used) // DESCRIPTORS_PER_CONTAINER
    connections = (most - seen.reserved) // DESCRIPTORS_PER_CONNECTION
    allows = (
        f"{used} of {most} in use: room for {containers} more containers; "
        f"a process that relays has room for {connections} connections"
    )
    remedy = (
        f"give the sidecar a hard limit of {DESCRIPTORS_MIN} or more (it raises the soft one itself): "
        'LimitNOFILE of docker.service, or "default-ulimits" in daemon.json'
    )
    if used >= FAIL_SHARE * most:
        return fail(name, f"{allows}; soon no container is captured and no port opened any more", remedy)
    small = most < DESCRIPTORS_MIN or used >= WARN_SHARE * most
    return warn(name, allows, remedy) if small else ok(name, allows)


def memory(seen: ProcessLimits) -> Check:
    name = "memory"
    if seen.memory is None:
        return ok(name, "is not limited here")
    used = f"{seen.memory / 2**20:.0f}"
    if seen.memory_max is None:
        return ok(name, f"{used} MiB in use, without a limit")
    left = max(0, seen.memory_max - seen.memory)
    allows = (
        f"{used} of {seen.memory_max / 2**20:.0f} MiB in use: room for about "
        f"{left // CONNECTION_BYTES} more connections"
    )
    remedy = "raise deploy.resources.limits.memory of the sidecar's service (deploy/stack.yml has 512M)"
    if seen.memory >= FAIL_SHARE * seen.memory_max:
        return fail(name, f"{allows}; the kernel ends a process that needs more", remedy)
    small = seen.memory_max < MEMORY_MIN or seen.memory >= WARN_SHARE * seen.memory_max
    return warn(name, allows, remedy) if small else ok(name, allows)


def processes(seen: ProcessLimits) -> Check:
    name = "processes"
    used, most = seen.processes, seen.processes_max
    if used is None:
        return ok(name, "are not limited here")
    if most is None:
        return ok(name, f"{used} processes and threads, without a limit")
    allows = f"{used} of {most} processes and threads"
    remedy = "raise deploy.resources.limits.pids of the sidecar's service, or the engine's default-pids-limit"
    left = most - used
    if left < PROCESSES_LEFT_MIN // 4:
        return fail(name, f"{allows}: one that ends can't be started anew", remedy)
    return warn(name, f"{allows}: few are left", remedy) if left < PROCESSES_LEFT_MIN else ok(name, allows)


def conntrack(count: int, limit: int) -> Check:
    """How full it is, and whether it is large enough for a node that carries traffic."""
    check = doctor.conntrack(count, limit)
    if check.verdict is not Verdict.OK or limit >= CONNTRACK_MIN:
        return check
    return warn(
        check.name,
        f"{check.seen}: published ports carry no more than {limit} connections at once",
        f"sysctl -w net.netfilter.nf_conntrack_max={4 * CONNTRACK_MIN}",
    )
