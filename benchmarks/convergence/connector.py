"""Opens new connections all the time, and prints to which task each one came. Standard library only.

    python -m benchmarks.convergence.connector EVERY_MS LABEL=ADDRESS:PORT … LABEL=NAME@DNS_PORT:PORT …

Runs inside a network namespace. To an address it connects as it is; a NAME is asked for each time, at
127.0.0.11:DNS_PORT, and one address of the reply is taken. Each label has a thread of its own. A line is
JSON: `{"at": when it was begun, "who": label, "task": what the task said, "failure": why nothing was, "to":
the address that was chosen}`. The clock is the machine's monotonic one. It goes on until standard
input ends.
"""

import errno
import json
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque

from benchmarks.convergence.connections import NAMELESS, REFUSED, SILENT
from benchmarks.convergence.prober import ADDRESS, LARGEST, addresses, query

PATIENCE = 0.8  # seconds; a lost SYN is sent again after 1 s, and may then be led elsewhere
ASKING = 0.5  # seconds for one reply of a resolver
AT_ONCE = 1024  # connections under way; then none is begun until one has ended
SAID_BYTES = 64
RESET = struct.pack("ii", 1, 0)


class Attempt:
    """One connection, from its beginning to what came of it."""

    def __init__(self, begun: float, sock: socket.socket, to: str) -> None:
        self.begun = begun
        self.sock = sock
        self.to = to


class Connector:
    """Begins a connection every so often; none waits for another."""

    def __init__(self, label: str, where: str, interval: float, printing: threading.Lock) -> None:
        self._label = label
        host, _, port = where.rpartition(":")
        self._name, _, resolver = host.partition("@")
        self._resolver = int(resolver) if resolver else 0
        self._port = int(port)
        self._interval = interval
        self._printing = printing
        self._selector = selectors.DefaultSelector()
        self._under_way: deque[Attempt] = deque()

    def run(self) -> None:
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due and len(self._under_way) < AT_ONCE:
                self._begin()
                due = max(due + self._interval, now)
            for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                self._proceed(key.data)
            self._give_up(time.monotonic() - PATIENCE)

    def _begin(self) -> None:
        begun = time.monotonic()
        try:
            address = self._resolve() if self._resolver else self._name
        except (OSError, LookupError):
            self._tell(begun, "", NAMELESS)
            return
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # no TIME_WAIT: ports run out
        to = address if self._resolver else ""
        attempt = Attempt(begun, sock, to)
        code = sock.connect_ex((address, self._port))
        if code not in (0, errno.EINPROGRESS):
            self._tell(begun, "", REFUSED, to)
            sock.close()
            return
        self._under_way.append(attempt)
        self._selector.register(sock, selectors.EVENT_READ, attempt)

    def _resolve(self) -> str:
        """One of the addresses that are told. Raises OSError, LookupError for none."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(ASKING)
            asking.connect((ADDRESS, self._resolver))
            asking.send(query(self._name))
            return random.choice(addresses(asking.recv(LARGEST)))

    def _proceed(self, attempt: Attempt) -> None:
        """It has said something, or there is nobody."""
        try:
            said = attempt.sock.recv(SAID_BYTES).decode()
        except OSError:
            said = ""
        self._end(attempt, said, "" if said else REFUSED)
        self._under_way.remove(attempt)

    def _give_up(self, begun_before: float) -> None:
        while self._under_way and self._under_way[0].begun < begun_before:
            self._end(self._under_way.popleft(), "", SILENT)

    def _end(self, attempt: Attempt, said: str, failure: str) -> None:
        self._selector.unregister(attempt.sock)
        attempt.sock.close()
        self._tell(attempt.begun, said, failure, attempt.to)

    def _tell(self, begun: float, said: str, failure: str, to: str = "") -> None:
        told = {"at": begun, "who": self._label, "task": said, "failure": failure, "to": to}
        line = json.dumps(told)
        with self._printing:
            print(line, flush=True)


def main() -> None:
    interval = float(sys.argv[1]) / 1000
    printing = threading.Lock()
    for argument in sys.argv[2:]:
        label, _, where = argument.partition("=")
        connector = Connector(label, where, interval, printing)
        threading.Thread(target=connector.run, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
