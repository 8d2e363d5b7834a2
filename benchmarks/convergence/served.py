"""A task that says which one it is: to each connection its hostname, which is its container's short id.

Runs inside a container, given to its interpreter as text (`python3 -c`). Standard library only.
"""

import contextlib
import signal
import socket
import sys

PORT = 9000


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # the first process of a container has no default
    name = socket.gethostname().encode()
    with socket.create_server(("", PORT), backlog=1024) as listening:
        while True:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(name)


if __name__ == "__main__":
    main()
