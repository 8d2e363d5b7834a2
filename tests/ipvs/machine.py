"""A test's hands on the Swarm in the virtual machine: those for the lab, and a look at Docker's rules.

Two services run from the start, a task of each on each node: `ours` is the mesh's once that is deployed,
`theirs` is left to Docker by label. So each test sees both ways side by side, in one kernel at one time.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.swarm import COMMAND_LIMIT, Box, Swarm, eventually, run

VM = (sys.executable, str(Path(__file__).parents[1] / "lab" / "vm"))
NODES = ("swarm00", "swarm01")
SANDBOX = "/var/run/docker/netns/ingress_sbox"
OURS, THEIRS, OURS_ECHO, THEIRS_ECHO, RELAYED = 80, 81, 90, 91, 85
DOCKERS = (  # all that Docker programs for the routing mesh, as commands in a namespace
    ("iptables", "-t", "mangle", "-S"),
    ("iptables", "-t", "nat", "-S"),
    ("ipvsadm", "-S", "-n"),
)
DOCKERS_ON_HOST = (("iptables", "-t", "nat", "-S"), ("iptables", "-S", "DOCKER-INGRESS"))


class Machine(Swarm):
    """`Swarm`, inside the virtual machine."""

    def lab(self, *argv: str, check: bool = True, limit: float = COMMAND_LIMIT) -> str:
        return run([*VM, *argv], check=check, limit=limit)

    def boxes(self, service: str, nodes: Iterable[str] = NODES) -> list[Box]:
        return super().boxes(service, nodes)

    def publish_services(self) -> None:
        """Make the two services, unless a machine that was kept has them."""
        if self.docker("service", "ls", "-q", "--filter", "name=theirs"):
            return
        self.network("back")
        common = ("--network", "back", "--mode", "global")
        ports = ("--publish", f"{OURS}:8080", "--publish", f"{OURS_ECHO}:9000")
        self.service("ours", *common, *ports)
        ports = ("--publish", f"{THEIRS}:8080", "--publish", f"{THEIRS_ECHO}:9000")
        self.service("theirs", *common, *ports, "--label", "mesh.enable=false")
        for port in (OURS, THEIRS):
            eventually(lambda p=port: self.get("swarm00", p), f"port {port} answers by Docker's means", 120)  # type: ignore[misc]

    def deploy(self) -> None:
        """Deploy the mesh, unless a machine that was kept has it."""
        if not all(self.ready(node) for node in NODES):
            self.lab("deploy", limit=900)
        eventually(lambda: self.seen_by(OURS) == {"10.10.10.1"}, "ours keep the client's address", 120)

    def remove(self) -> None:
        self.docker("stack", "rm", "mesh")
        eventually(lambda: not self.tables(), "the mesh has taken its tables out", 120)

    def vip(self, service: str, network: str) -> str:
        id_ = self.docker("network", "inspect", "-f", "{{.Id}}", network)
        template = "{{range .Endpoint.VirtualIPs}}{{.NetworkID}} {{.Addr}} {{end}}"
        words = self.docker("service", "inspect", "-f", template, service).split()
        return words[words.index(id_) + 1].partition("/")[0]

    def seen_by(self, port: int, node: str = "swarm00", count: int = 4) -> set[str]:
        """The clients that the application saw; "" for no answer."""
        answers = [self.get(node, port) for _ in range(count)]
        return {answer["remote"] if answer else "" for answer in answers}

    def in_sandbox(self, node: str, *argv: str, check: bool = True) -> str:
        return self.on(node, "nsenter", f"--net={SANDBOX}", *argv, check=check)

    def dockers(self, node: str) -> dict[str, list[str]]:
        """Everything of Docker's for published ports on that node, counters left out."""
        inside = {" ".join(words): self.in_sandbox(node, *words) for words in DOCKERS}
        host = {f"host: {' '.join(words)}": self.on(node, *words) for words in DOCKERS_ON_HOST}
        return {name: sorted(text.splitlines()) for name, text in {**inside, **host}.items()}

    def ipvs_connections(self, node: str = "swarm00") -> int:
        """How many connections IPVS has accepted in the ingress namespace since that was made."""
        listed = self.in_sandbox(node, "ipvsadm", "-L", "-n", "--stats", "--exact")
        return sum(int(row.split()[2]) for row in listed.splitlines() if row.startswith("FWM"))

    def tables(self) -> list[str]:
        """Namespaces of both nodes in which something of ours is, rules in Docker's chains included."""
        look = (
            'show() { { "$@" nft list tables; "$@" iptables -S DOCKER-USER; } 2>/dev/null | grep -i mesh '
            '&& echo "in $*"; }; show env; '
            "for one in /var/run/docker/netns/*; do show nsenter --net=$one; done; true"
        )
        found = [(node, self.on(node, "sh", "-c", look)) for node in NODES]
        return [f"{node} {line}" for node, text in found for line in text.splitlines() if line.strip()]

    def marks(self, node: str = "swarm00") -> list[str]:
        """Published ports → firewall marks, as Docker has them in the ingress namespace."""
        listed = self.in_sandbox(node, "iptables", "-t", "mangle", "-S", "PREROUTING")
        return re.findall(r"--dport (\d+) .*--set-x?mark", listed)
