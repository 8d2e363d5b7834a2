"""IPVS forgets a connection that says nothing for 900 s, and whoever speaks next is not heard. Ours stays.

IPVS's time is shortened, so that the test need not wait for a quarter of an hour; conntrack's is as it is.
"""

from collections.abc import Iterator

import pytest

from tests.ipvs.machine import NODES, OURS_ECHO, THEIRS_ECHO, Machine
from tests.support.swarm import FRONT, eventually

SHORT = ("5", "5", "5")  # seconds: tcp, tcp after FIN, udp
DOCKERS_OWN = ("900", "120", "300")
HOLD = """
import os, socket, sys, time
held = {}
for port in map(int, sys.argv[2].split(",")):
    held[port] = socket.create_connection((sys.argv[1], port), 20)
    held[port].settimeout(20)
    held[port].sendall(b"first")
    assert held[port].recv(100) == b"first"
open(sys.argv[3], "w").close()
while os.path.exists(sys.argv[3]):
    time.sleep(0.2)
for port, one in held.items():
    try:
        one.sendall(b"second")
        said = one.recv(100)
    except OSError as error:
        said = type(error).__name__.encode()
    print(port, said.decode() or "closed", flush=True)
"""


@pytest.fixture
def short_times(deployed: Machine) -> Iterator[Machine]:
    for node in NODES:
        deployed.in_sandbox(node, "ipvsadm", "--set", *SHORT)
    yield deployed
    for node in NODES:
        deployed.in_sandbox(node, "ipvsadm", "--set", *DOCKERS_OWN)


def test_a_silent_connection_dies_by_ipvs_and_lives_by_ours(short_times: Machine) -> None:
    flag = "/tmp/both-are-open"
    ports = f"{OURS_ECHO},{THEIRS_ECHO}"
    script = 'python3 -c "$1" "$2" "$3" "$4" >/tmp/held.txt 2>&1 & echo $!'
    command = ("sh", "-c", script, "sh", HOLD, FRONT["swarm00"], ports, flag)
    short_times.client(*command)
    eventually(lambda: short_times.client("ls", flag, check=False).strip() == flag, "both are open")
    eventually(lambda: not remembered(short_times), "IPVS has forgotten the silent connection", 120)
    short_times.client("rm", flag)
    said = eventually(lambda: answers(short_times), "both have spoken again", 90)
    assert said[OURS_ECHO] == "second"
    assert said[THEIRS_ECHO] != "second"


def remembered(machine: Machine) -> bool:
    """Does IPVS still know a connection?"""
    listed = machine.in_sandbox("swarm00", "ipvsadm", "-L", "-c", "-n")
    return "10.10.10.1" in listed


def answers(machine: Machine) -> dict[int, str]:
    rows = [line.split() for line in machine.client("cat", "/tmp/held.txt").splitlines()]
    said = {int(port): word for port, word in rows}
    return said if {OURS_ECHO, THEIRS_ECHO} <= set(said) else {}
