"""Processes for one flooded endpoint and another one. `python -m tests.dns.flood` followed by

KIND PORT         floods 127.0.0.1:PORT with queries of that kind, for a minute at most
steady KIND PORT  asks now and then; prints latencies in seconds as JSON, null for no answer
upstream          prints its port, and is silent about most names
"""

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from random import Random

STUB_TIMEOUT = 5.0  # seconds that libc's resolver waits for one answer
STUB_ATTEMPTS = 2  # and how often it asks; what is ours must not need the second
STEADY = 50  # questions of the steady asker
STEADY_PAUSE = 0.01  # seconds between two of them
FLOOD_MAX = 60.0  # seconds
KINDS = ("cached", "local", "unknown", "malformed")
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
UPSTREAM_BUFFER = 8 * 1024 * 1024  # bytes: what is lost here is not the resolver's fault
ADDRESS = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xc0\0\2\1"
WEB = b"\3web\0\0\1\0\1"


def flood(kind: str, port: int) -> None:
    """Send as fast as the kernel takes it. Nobody reads the replies."""
    end = time.monotonic() + FLOOD_MAX
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", port))
        for message in queries(kind):
            with suppress(OSError):  # its own buffers are full
                client.send(message)
            if time.monotonic() > end:
                return


def queries(kind: str) -> Iterator[bytes]:
    rng = Random(1)
    while True:
        number = rng.getrandbits(64).to_bytes(8)
        if kind == "cached":
            yield number[:2] + b"\1\0\0\1\0\0\0\0\0\0" + WEB
        elif kind == "local":  # a cookie of its own keeps each from the cache
            yield (
                number[:2]
                + b"\1\0\0\1\0\0\0\0\0\1"
                + WEB
                + b"\0\0\x29\4\xd0\0\0\0\0\0\x0c\0\x0a\0\x08"
                + number
            )
        elif kind == "unknown":
            yield number[:2] + b"\1\0\0\1\0\0\0\0\0\0\x10" + number.hex().encode() + b"\7example\0\0\1\0\1"
        else:
            yield (number * 8)[: rng.randrange(64)]


def steady(kind: str, port: int) -> list[float | None]:
    taken: list[float | None] = []
    for number in range(STEADY):
        began = time.monotonic()
        if kind == "local":
            answered = ask(port, number, b"\3web\0")
        else:
            name = b"\6www%03d\7example\0" % number
            answered = any(ask(port, number, name) for _ in range(STUB_ATTEMPTS))
        taken.append(time.monotonic() - began if answered else None)
        time.sleep(STEADY_PAUSE)
    return taken


def ask(port: int, number: int, name: bytes) -> bool:
    """One question from a socket of its own, as stub resolvers do. Is it answered?"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(STUB_TIMEOUT)
        client.connect(("127.0.0.1", port))
        client.send(number.to_bytes(2) + b"\1\0\0\1\0\0\0\0\0\0" + name + b"\0\1\0\1")
        try:
            reply = client.recv(512)
        except (TimeoutError, ConnectionError):
            return False
    return reply[:2] == number.to_bytes(2) and reply[3] & 0xF == 0 and reply[7] == 1


def upstream() -> None:
    """Says where it is, then answers names that begin with "www", and no others, until it is ended."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        with suppress(OSError, AttributeError):  # without privilege the kernel's default must do
            server.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, UPSTREAM_BUFFER)
        server.bind(("127.0.0.1", 0))
        print(server.getsockname()[1], flush=True)
        while True:
            query, asker = server.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            if query[12:16].lower() == b"\6www":
                reply = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + query[12:end] + ADDRESS
                server.sendto(reply, asker)


if __name__ == "__main__":
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "upstream":
        upstream()
    elif what == "steady":
        print(json.dumps(steady(arguments[0], int(arguments[1]))))
    else:
        flood(what, int(arguments[0]))
