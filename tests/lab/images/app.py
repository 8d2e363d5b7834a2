#!/usr/bin/env python3
"""The lab's application: what a Swarm user might run, unaware of any mesh. Standard library only.

    app.py serve              HTTP on $PORT (8080), TCP and UDP echo on $ECHO_PORT (9000; "off": none), from
                              $START_DELAY seconds after the start on
    app.py idle               does nothing until SIGTERM
    app.py get URL            prints the body; exit 1 on any failure
    app.py lookup NAME        prints the addresses, one a line; exit 1 if there are none

HTTP: GET /slow?seconds=N answers late; /upstream/… is fetched from $UPSTREAM (http://service:port), the name
looked up anew for each request; anything else tells who answered: {"hostname", "task", "remote", "path"}. A
datagram "who" is answered with the sender's address, others are echoed. On SIGTERM it stops accepting,
finishes what it has accepted, and ends, as a production service should.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import socketserver
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

UPSTREAM_SECONDS = 5.0
SLOW_LIMIT_SECONDS = 600.0
DRAIN_SECONDS = 8.0  # below the grace that Docker gives by default
CHUNK = 65536
STOPPED = threading.Event()


class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "mesh-app"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path.startswith("/upstream"):
            self.forward(url.path.removeprefix("/upstream") or "/", url.query)
            return
        if url.path == "/slow":
            asked = urllib.parse.parse_qs(url.query).get("seconds", ["1"])[0]
            time.sleep(min(float(asked), SLOW_LIMIT_SECONDS))
        self.answer(200, self.identity())

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(200, {**self.identity(), "received": len(body)})

    def identity(self) -> dict[str, object]:
        return {
            "hostname": socket.gethostname(),
            "task": os.environ.get("TASK", ""),
            "remote": self.client_address[0],
            "path": self.path,
            "forwarded": self.headers.get("X-Forwarded-For", ""),
        }

    def forward(self, path: str, query: str) -> None:
        base = os.environ.get("UPSTREAM", "").rstrip("/")
        try:
            url = f"{base}{path}?{query}" if query else f"{base}{path}"
            with urllib.request.urlopen(url, timeout=UPSTREAM_SECONDS) as got:
                self.answer(got.status, {"via": socket.gethostname(), "answer": json.load(got)})
        except (OSError, ValueError, urllib.error.URLError) as error:
            self.answer(502, {"via": socket.gethostname(), "error": str(error)})

    def answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a benchmark would measure the log."""


class Web(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.connections: set[socket.socket] = set()
        self.changed = threading.Condition()

    def process_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:
        with self.changed:
            self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        with self.changed:
            self.connections.discard(request)
            self.changed.notify_all()
        super().shutdown_request(request)

    def drain(self, seconds: float) -> None:
        """Accept no more, answer what has been asked, and close; so long at most."""
        self.shutdown()
        while select.select([self.socket], [], [], 0)[0]:  # accepted by the kernel already
            self._handle_request_noblock()
        self.socket.close()
        with self.changed:
            for one in self.connections:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RD)  # what has come is still read; then the connection ends
            self.changed.wait_for(lambda: not self.connections, seconds)


class Echo(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 1024


class EchoStream(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        try:
            while data := self.request.recv(CHUNK):
                self.request.sendall(data)
        except ConnectionError:
            pass


def echo_datagrams(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("", port))
        while True:
            data, peer = udp.recvfrom(CHUNK)
            udp.sendto(peer[0].encode() if data == b"who" else data, peer)


def serve() -> None:
    time.sleep(float(os.environ.get("START_DELAY", "0")))
    echo = os.environ.get("ECHO_PORT", "9000")
    if echo != "off":
        stream = Echo(("", int(echo)), EchoStream)
        threading.Thread(target=stream.serve_forever, daemon=True).start()
        threading.Thread(target=echo_datagrams, args=(int(echo),), daemon=True).start()
    web = Web(("", int(os.environ.get("PORT", "8080"))), Application)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    STOPPED.wait()
    web.drain(DRAIN_SECONDS)


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=UPSTREAM_SECONDS) as got:
            sys.stdout.write(got.read().decode())
            return 0
    except OSError as error:
        print(error, file=sys.stderr)
        return 1


def lookup(name: str) -> int:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(dict.fromkeys(str(address[4][0]) for address in found)))
    return 0


def main(words: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: STOPPED.set())
    match words:
        case [] | ["serve"]:
            serve()
        case ["idle"]:
            STOPPED.wait()
        case ["get", url]:
            return get(url)
        case ["lookup", name]:
            return lookup(name)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
