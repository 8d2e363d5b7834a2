"""Connections that are opened, used once, and then held, as a program.

    python -m benchmarks.l4.holding ADDRESS PORT COUNT

Each sends one request and reads the reply, so that it is known to reach a task. Then a line is printed, and
all are held until standard input ends.
"""

import socket
import sys

AT_ONCE = 100  # being opened; below every listener's backlog
PATIENCE = 10.0  # seconds for one reply
REQUEST = b"GET / HTTP/1.1\r\nHost: held\r\n\r\n"
REPLY_BYTES = 4096


def opened(address: str, port: int, count: int) -> list[socket.socket]:
    """Raises OSError."""
    held: list[socket.socket] = []
    while len(held) < count:
        some = [
            socket.create_connection((address, port), PATIENCE)
            for _ in range(min(AT_ONCE, count - len(held)))
        ]
        for one in some:
            one.sendall(REQUEST)
        for one in some:
            if not (reply := one.recv(REPLY_BYTES)).endswith(b"ok"):
                raise ConnectionError(f"that is no reply of a task's: {reply!r}")
        held += some
    return held


def main() -> None:
    address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    held = opened(address, port, count)
    print(len(held), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
