"""What tests of several processes look at: our children, and who of them has a listening socket."""

import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh.net import proc

PATIENCE = 20.0  # seconds for one answer


def children(module: str, of: int | None = None) -> set[int]:
    """Processes that a process (we, unless said) has started from this module."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat, words = (entry / "stat").read_text(), (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has ended meanwhile
        parent = int(stat.rpartition(")")[2].split()[1])
        if parent == (of or os.getpid()) and module.encode() in words:
            found.add(int(entry.name))
    return found


def is_listened_on(port: int) -> bool:
    """Does anybody have a listening socket there?"""
    return any(one.port == port for one in (*proc.bound("tcp"), *proc.bound6()))


def holds(process: int, port: int) -> bool:
    """Has the process the listening socket of the TCP port?"""
    wanted = {f"socket:[{one.inode}]" for one in (*proc.bound("tcp"), *proc.bound6()) if one.port == port}
    try:
        held = [os.readlink(entry) for entry in Path(f"/proc/{process}/fd").iterdir()]
    except OSError:
        return False
    return not wanted.isdisjoint(held)


@contextmanager
def answering(address: str, port: int = 0) -> Iterator[int]:
    """An application that sends its address to each who connects, then back what comes. Yields its port."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(address.encode().ljust(ADDRESS_BYTES))
            while data := self.request.recv(4096):
                self.request.sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 100
        allow_reuse_address = True
        daemon_threads = True

    with Server((address, port), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


ADDRESS_BYTES = 15


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def greeting(sock: socket.socket) -> str:
    """Who answers."""
    data = b""
    while len(data) < ADDRESS_BYTES:
        if not (more := sock.recv(ADDRESS_BYTES - len(data))):
            raise ConnectionError("the end, before a greeting")
        data += more
    return data.decode().strip()


def answer(port: int) -> str:
    """One connection, from its beginning to its end."""
    with connected(port) as sock:
        return greeting(sock)
