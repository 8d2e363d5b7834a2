"""Waiting for a DNS server to answer; as a program, inside another network namespace.

python -m benchmarks.ready ADDRESS PORT NAME
"""

import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from mesh.dns.wire import QType, query_message

READY_WITHIN = 60.0  # seconds; 100,000 names take some servers a while
ONE_TRY = 0.2  # seconds


def answers(address: str, port: int, name: str) -> bool:
    query = query_message(1, name, QType.A)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(ONE_TRY)
        try:
            asking.sendto(query, (address, port))
            return asking.recv(512)[3] & 0xF == 0
        except OSError:
            return False


def await_answer(
    process: "subprocess.Popen[bytes]", inside: Sequence[str], address: str, port: int, name: str
) -> str:
    """ "" when the server answers; else what is wrong with it. `inside`: the command that leads to it."""
    probe = [*inside, sys.executable, "-m", "benchmarks.ready", address, str(port), name]
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end:
        if process.poll() is not None:
            return f"ended with status {process.returncode}"
        ready = not subprocess.run(probe, check=False).returncode if inside else answers(address, port, name)
        if ready:
            return ""
    return f"did not answer within {READY_WITHIN:.0f} s"


if __name__ == "__main__":
    sys.exit(0 if answers(sys.argv[1], int(sys.argv[2]), sys.argv[3]) else 1)
