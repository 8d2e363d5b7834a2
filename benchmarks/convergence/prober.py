"""Asks resolvers for one name all the time, and prints every change of the answer. Standard library only.

    python -m benchmarks.convergence.prober NAME EVERY_MS LABEL=PORT …

Runs inside a container's network namespace and asks 127.0.0.11, each port in a thread of its own, so that one
that is slow does not slow the other. A line is JSON: `{"at": seconds, "who": label, "addresses": […]}`; the
clock is the machine's monotonic one, so that times can be compared with those of other processes. It goes on
until standard input ends: a signal to who started it would not come through to another node's processes.
"""

import json
import socket
import struct
import sys
import threading
import time

ADDRESS = "127.0.0.11"
HEADER = 12  # bytes
A = 1
PATIENCE = 0.5  # seconds for one reply; a stub resolver has more
LARGEST = 65535  # bytes


def query(name: str) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return b"\0\0\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def addresses(reply: bytes) -> list[str]:
    """Those of the A records in the answer section, sorted."""
    (count,) = struct.unpack_from("!H", reply, 6)
    at = _name_end(reply, HEADER) + 4
    found = []
    for _ in range(count):
        at = _name_end(reply, at)
        kind, _, _, length = struct.unpack_from("!HHIH", reply, at)
        at += 10
        if kind == A:
            found.append(".".join(map(str, reply[at : at + length])))
        at += length
    return sorted(found)


def _name_end(message: bytes, at: int) -> int:
    """Where the name that begins at `at` ends: at a pointer, or at the root."""
    while True:
        length = message[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if not length:
            return at


def watch(label: str, port: int, name: str, interval: float, printing: threading.Lock) -> None:
    asked, number, last = query(name), 0, None
    asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking.settimeout(PATIENCE)
    asking.connect((ADDRESS, port))
    while True:
        started = time.monotonic()
        number = number % LARGEST + 1
        id_ = number.to_bytes(2, "big")
        try:
            asking.send(id_ + asked[2:])
            while (reply := asking.recv(LARGEST))[:2] != id_:
                pass
            now = addresses(reply)
            if now != last:
                last = now
                line = json.dumps({"at": time.monotonic(), "who": label, "addresses": now})
                with printing:
                    print(line, flush=True)
        except OSError:  # no reply in time, or nobody there: not an answer
            pass
        time.sleep(max(0.0, interval - (time.monotonic() - started)))


def main() -> None:
    name, interval = sys.argv[1], float(sys.argv[2]) / 1000
    printing = threading.Lock()
    for argument in sys.argv[3:]:
        label, _, port = argument.partition("=")
        threading.Thread(target=watch, args=(label, int(port), name, interval, printing), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
