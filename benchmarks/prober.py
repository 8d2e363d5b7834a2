"""Asks resolvers for one name all the time, and prints every change of the answer. Standard library only.

    python3 prober.py NAME EVERY_MS LABEL=PORT …

Runs inside a container's network namespace and asks 127.0.0.11 on each port in turn. A line is JSON:
`{"at": monotonic seconds, "who": label, "addresses": […]}`; the clock is the machine's, so times can be
compared with those of other processes. No reply within the interval changes nothing.
"""

import json
import socket
import sys
import time

ADDRESS = "127.0.0.11"
TTL_AND_LENGTH = 6  # bytes between a record's class and its data


def query(name: str) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return b"\0\0\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


def addresses(reply: bytes, question: int) -> list[str]:
    """The A records. Owners are pointers in Docker's replies and in ours, or the name in full."""
    found, at = [], question
    for _ in range(int.from_bytes(reply[6:8], "big")):
        at += 2 if reply[at] >= 0xC0 else question - 12 - 4
        kind = int.from_bytes(reply[at : at + 2], "big")
        at += 4 + TTL_AND_LENGTH
        length = int.from_bytes(reply[at - 2 : at], "big")
        if kind == 1:
            found.append(".".join(map(str, reply[at : at + 4])))
        at += length
    return sorted(found)


def main() -> None:
    name, interval = sys.argv[1], float(sys.argv[2]) / 1000
    asked = query(name)
    resolvers = []
    for argument in sys.argv[3:]:
        label, _, port = argument.partition("=")
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asking.settimeout(interval)
        asking.connect((ADDRESS, int(port)))
        resolvers.append((label, asking))
    last: dict[str, list[str] | None] = {}
    number = 0
    while True:
        started = time.monotonic()
        number = number % 65535 + 1
        id_ = number.to_bytes(2, "big")
        for label, asking in resolvers:
            try:
                asking.send(id_ + asked[2:])
                while (reply := asking.recv(4096))[:2] != id_:
                    pass
            except OSError:
                continue
            now = addresses(reply, len(asked))
            if now != last.get(label):
                last[label] = now
                print(json.dumps({"at": time.monotonic(), "who": label, "addresses": now}), flush=True)
        time.sleep(max(0.0, interval - (time.monotonic() - started)))


if __name__ == "__main__":
    main()
