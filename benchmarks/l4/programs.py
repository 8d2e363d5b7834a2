"""The programs around a measurement: the application in the tasks, the relays that ours is measured beside.

Debian's packages, run from a folder of their own in the foreground, each on one core: no service is started,
no file of the system is read or written. One that is not installed is left out.
"""

import resource
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.l4.carrying import BULK, BULK_KERNEL, WEB, WEB_KERNEL
from benchmarks.l4.world import TASKS

PACKAGES = ("iperf3", "wrk", "haproxy", "nginx-light", "libnginx-mod-stream")
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
FILES_WANTED = 100_000  # file descriptors; where root may not have them, as many as there are
FILES_APART = 100  # of them that are no connection's
SPLICED = 1000  # connections of HAProxy when it splices: it wants descriptors for their pipes as well
BACKLOG = 4096
IDLE = "3600s"


def raise_files() -> None:
    """The limit that all programs inherit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_WANTED, max(hard, FILES_WANTED)))
    except ValueError:  # root without CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections() -> int:
    """That a relay can hold: each takes two descriptors."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FILES_APART) // 2


@dataclass(frozen=True)
class Relay:
    """A peer: `argv` writes what it needs into the folder and says how to start it."""

    name: str
    program: str
    argv: Callable[[Path], list[str]]
    needs: Path | None = None
    roomy: bool = True  # takes as many connections as there may be

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None and (self.needs is None or self.needs.exists())


def _haproxy(*options: str, most: int | None = None, threads: int = 1) -> Callable[[Path], list[str]]:
    def argv(folder: Path) -> list[str]:
        config = folder / "haproxy.cfg"
        lines = [
            *("global", f"  maxconn {most or connections()}", f"  nbthread {threads}"),
            *("defaults", "  mode tcp", "  timeout connect 2s"),
            *(f"  timeout client {IDLE}", f"  timeout server {IDLE}", *(f"  {one}" for one in options)),
        ]
        for name, port, target, addresses in _carried():
            lines += [f"listen {name}", f"  bind :{port} backlog {BACKLOG}", "  balance roundrobin"]
            lines += [f"  server t{at} {address}:{target}" for at, address in enumerate(addresses)]
        config.write_text("\n".join(lines) + "\n")
        return ["haproxy", "-db", "-f", str(config)]

    return argv


def _nginx_stream(folder: Path) -> list[str]:
    blocks = []
    for name, port, target, addresses in _carried():
        servers = " ".join(f"server {address}:{target} max_fails=0;" for address in addresses)
        blocks.append(
            f"upstream {name} {{ {servers} }}\n"
            f"server {{ listen {port} backlog={BACKLOG}; proxy_pass {name}; proxy_timeout {IDLE}; }}\n"
        )
    return _nginx(folder, f"load_module {STREAM_MODULE};\n", f"stream {{\n{''.join(blocks)}}}\n")


def _carried() -> list[tuple[str, int, int, Sequence[str]]]:
    return [("web", WEB_KERNEL, WEB, TASKS), ("bulk", BULK_KERNEL, BULK, TASKS[:1])]


def web(folder: Path) -> list[str]:
    """The application: a reply of two bytes, at once, or who asks; it closes when it is told to."""
    server = (
        f"listen {WEB} backlog={BACKLOG}; keepalive_timeout {IDLE}; keepalive_requests 1000000000;"
        ' location / { return 200 "ok"; } location /who { return 200 $remote_addr; }'
    )
    return _nginx(folder, "", f"http {{ access_log off; server_tokens off; server {{ {server} }} }}\n")


def bulk() -> list[str]:
    """The other end of a bulk transfer."""
    return ["iperf3", "--server", "--port", str(BULK)]


def ours(netns: Path, box: str, tasks: str, processes: int = 1) -> list[str]:
    return [sys.executable, "-m", "benchmarks.l4.carrying", str(netns), box, tasks, str(processes)]


def _nginx(folder: Path, head: str, body: str) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(
        f"{head}daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;\n"
        f"events {{ worker_connections {2 * connections()}; }}\n{body}"
    )
    return ["nginx", "-p", str(folder), "-c", str(config)]


RELAYS = (
    Relay("HAProxy", "haproxy", _haproxy()),
    Relay("HAProxy splice", "haproxy", _haproxy("option splice-auto", most=SPLICED), roomy=False),
    Relay("nginx", "nginx", _nginx_stream, STREAM_MODULE),
)
ON_TWO_CORES = Relay("HAProxy, 2 threads", "haproxy", _haproxy(threads=2))
# Without these there is nothing to measure.
NEEDED = ("iperf3", "wrk", "nginx", "nft", "ip", "nsenter", "taskset")


def missing() -> list[str]:
    return [program for program in NEEDED if shutil.which(program) is None]
