"""Ours against Docker's IPVS mesh, in turns, in the virtual machine that is up with the mesh deployed.

    MESH_VM_KEEP=1 make test-ipvs PYTEST_ARGS=tests/ipvs/test_beside_docker.py
    python -m tests.ipvs.side_by_side

Emulation makes every instruction about equally dear, caches and batches count for nothing: only a hint.
The same application answers on both, so what it costs itself draws the ratios toward 1.
"""

import json
from statistics import median

from tests.ipvs.machine import OURS_ECHO, THEIRS_ECHO, Machine
from tests.support.swarm import FRONT

ROUNDS = 7
CONNECTIONS = 100  # a round
BULK = 4 << 20  # bytes there and back, a round
LOAD = """
import json, socket, sys, threading, time
host, rounds, connections, bulk = sys.argv[1], *map(int, sys.argv[2:5])
ports = list(map(int, sys.argv[5:]))

def connect(port):
    for _ in range(connections):
        with socket.create_connection((host, port), 20) as one:
            one.sendall(b"x")
            assert one.recv(1) == b"x"

def send(port):
    with socket.create_connection((host, port), 20) as one:
        def write():
            one.sendall(bytes(bulk))
        writer = threading.Thread(target=write)
        writer.start()
        left = bulk
        while left:
            left -= len(one.recv(65536)) or sys.exit("closed")
        writer.join()

out = {act.__name__: {port: [] for port in ports} for act in (connect, send)}
for turn in range(rounds + 1):
    for act in (connect, send):
        for port in ports[::-1] if turn % 2 else ports:
            started = time.monotonic()
            act(port)
            if turn:  # the first round warms up
                out[act.__name__][port].append(time.monotonic() - started)
print(json.dumps(out))
"""


def main() -> None:
    machine = Machine()
    numbers = (ROUNDS, CONNECTIONS, BULK, OURS_ECHO, THEIRS_ECHO)
    out = machine.lab("client", "--", "python3", "-c", LOAD, FRONT["swarm00"], *map(str, numbers), limit=900)
    seconds = json.loads(out)
    for act, what in (("connect", "new connections/s"), ("send", "one bulk connection")):
        ours, theirs = (seconds[act][str(port)] for port in (OURS_ECHO, THEIRS_ECHO))
        each = sorted(there / here for here, there in zip(ours, theirs, strict=True))
        print(
            f"{what}: ours ÷ IPVS {median(theirs) / median(ours):.2f} (rounds {each[0]:.2f}–{each[-1]:.2f})"
        )


if __name__ == "__main__":
    main()
