"""A test's hands on the real Swarm of `tests/lab`: what a person would type, as methods.

Everything goes through `tests/lab/lab` and the tools of an operator (docker, dig, curl, nsenter); nothing
looks inside the sidecar except through its public surfaces. Waiting is always `eventually(...)`: a condition
with a deadline and a description, never a fixed sleep.
"""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

LAB = (sys.executable, str(Path(__file__).parents[1] / "lab" / "lab"))
NODES = ("swarm00", "swarm01", "swarm02")
FRONT = {name: f"10.10.10.{60 + index}" for index, name in enumerate(NODES)}
APP_IMAGE = "mesh-app:lab"
COMMAND_LIMIT = 180.0  # seconds for one command on the lab; only a hang takes longer
POLL = 0.1  # seconds between two looks at a condition

T = TypeVar("T")


class CommandFailed(AssertionError):
    """A command on the lab ended with a status other than 0; the message has all it printed."""


def run(argv: Sequence[str], *, check: bool = True, limit: float = COMMAND_LIMIT, stdin: str = "") -> str:
    """Run a command on this machine and return its standard output."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=limit, check=False)
    if check and done.returncode:
        raise CommandFailed(f"{' '.join(argv)} → {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def eventually(look: Callable[[], T], what: str, deadline: float = 60.0) -> T:
    """Look until the result is truthy and return it; AssertionError naming `what` and the last look else.

    A look that raises AssertionError counts as "not yet".
    """
    end = time.monotonic() + deadline
    last: object = None
    while time.monotonic() < end:
        try:
            result = look()
            if result:
                return result
            last = result
        except AssertionError as error:
            last = error
        time.sleep(POLL)
    raise AssertionError(f"not within {deadline:.0f} s: {what}; last seen: {last}")


@dataclass(frozen=True)
class Dig:
    """What `dig` printed, as data."""

    status: str
    answers: tuple[tuple[str, int, str, str], ...]  # name, TTL, type, data
    flags: str = ""

    @property
    def data(self) -> list[str]:
        return sorted(answer[3] for answer in self.answers)

    @staticmethod
    def parse(text: str) -> "Dig":
        status = re.search(r"status: (\w+)", text)
        flags = re.search(r"flags: ([a-z ]*);", text)
        section = re.search(r";; ANSWER SECTION:\n(.*?)\n\n", text, re.DOTALL)
        rows = [line.split(None, 4) for line in section[1].splitlines()] if section else []
        answers = tuple((row[0], int(row[1]), row[3], row[4]) for row in rows)
        return Dig(status[1] if status else "NONE", answers, flags[1] if flags else "")


@dataclass(frozen=True)
class Box:
    """A running container of the Swarm, with its node."""

    swarm: "Swarm"
    node: str
    id: str
    name: str
    namespace: str
    addresses: dict[str, str]

    def inside(self, *argv: str, check: bool = True) -> str:
        """Run a tool of the node in this container's network namespace."""
        return self.swarm.on(self.node, "nsenter", f"--net={self.namespace}", *argv, check=check)

    def exec(self, *argv: str, check: bool = True) -> str:
        """`docker exec`: the container's own files, resolv.conf included."""
        return self.swarm.docker("exec", self.id, *argv, node=self.node, check=check)

    def dig(self, name: str, kind: str = "A", *options: str) -> Dig:
        """Ask 127.0.0.11 as this container would."""
        argv = ["dig", "@127.0.0.11", "+tries=1", "+time=3", *options, name, kind]
        return Dig.parse(self.inside(*argv, check=False))

    def dig_docker(self, name: str, kind: str = "A", *options: str) -> Dig:
        """Ask Docker's own resolver of this container, past our redirect, on its real port."""
        rules = self.inside("iptables", "-t", "nat", "-S", "DOCKER_OUTPUT")
        transport = "tcp" if "+tcp" in options else "udp"
        port = re.search(rf"-p {transport} .*--to-destination 127\.0\.0\.11:(\d+)", rules)
        assert port, f"no {transport} rule of Docker's resolver in:\n{rules}"
        return self.dig(name, kind, "-p", port[1], *options)

    def fetch(self, url: str) -> dict[str, Any] | None:
        """GET from inside, with the container's own name resolution; None when it fails."""
        code = f"import urllib.request as r; print(r.urlopen({url!r}, timeout=5).read().decode())"
        out = self.exec("python3", "-c", code, check=False)
        return json.loads(out) if out.strip() else None

    def tables(self) -> str:
        return self.inside("nft", "list", "tables")


@dataclass
class Swarm:
    """The lab with the mesh deployed. Services and networks made through it are removed by `tidy()`."""

    services: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    stacks: list[str] = field(default_factory=list)

    # -- the nodes and the client ------------------------------------------------------------------

    def lab(self, *argv: str, check: bool = True, limit: float = COMMAND_LIMIT) -> str:
        return run([*LAB, *argv], check=check, limit=limit)

    def on(self, node: str, *argv: str, check: bool = True) -> str:
        return self.lab("node", node, "--", *argv, check=check)

    def client(self, *argv: str, check: bool = True) -> str:
        return self.lab("client", "--", *argv, check=check)

    def docker(self, *argv: str, node: str = "swarm00", check: bool = True) -> str:
        return self.on(node, "docker", *argv, check=check).strip()

    def mesh(self, node: str, *argv: str) -> Any:
        """`mesh … --json` in the node's sidecar."""
        return json.loads(self.docker("exec", self.sidecar(node), "mesh", *argv, "--json", node=node))

    def sidecar(self, node: str) -> str:
        """Container id of the node's running sidecar."""
        ids = self.docker("ps", "-q", "--filter", "name=mesh_sidecar", node=node).split()
        assert len(ids) == 1, f"{len(ids)} sidecars run on {node}"
        return ids[0]

    def configure(self, **variables: str) -> None:
        """Restart the sidecars with these variables (docs/configuration.md), and wait until all are ready."""
        changes = [word for name, value in variables.items() for word in ("--env-add", f"{name}={value}")]
        self.docker("service", "update", "--detach=false", "--quiet", *changes, "mesh_sidecar")
        for node in NODES:
            eventually(lambda node=node: self.ready(node), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]

    def ready(self, node: str) -> bool:
        out = self.client("curl", "-s", "-o", "/dev/null", "-m", "2", "-w", "%{http_code}",
                          f"http://{FRONT[node]}:9180/readyz", check=False)  # fmt: skip
        return out == "200"

    def promote(self, node: str) -> None:
        """And wait until it has its seat: two at once can leave the managers without a quorum."""
        self._ask_until(("node", "promote", node), lambda: self._is_manager(node), f"{node} is a manager")

    def demote(self, node: str) -> None:
        self._ask_until(("node", "demote", node), lambda: self._is_worker(node), f"{node} is a worker")

    def _ask_until(self, argv: Iterable[str], done: Callable[[], bool], what: str) -> None:
        """Engine 20.10: what is written in the second in which a manager joins (a task's new state, the next
        promotion) can block the leader for half a minute ("data store lock held too long"), until another
        takes over. Who asked meanwhile is told of a deadline, whether it will be done or not."""

        def look() -> bool:
            self.docker(*argv, check=False)
            return done()

        eventually(look, what, 150)

    def _is_manager(self, node: str) -> bool:
        return self._control(node) == "true" and self._seat(node) in {"Reachable", "Leader"}

    def _is_worker(self, node: str) -> bool:
        return self._control(node) == "false" and self._seat(node) == ""

    def _control(self, node: str) -> str:
        return self.docker("info", "--format", "{{.Swarm.ControlAvailable}}", node=node, check=False)

    def _seat(self, node: str) -> str:
        """Its manager status as swarm00 has it; "" for a worker's, "?" while there is no leader to say."""
        listed = self.docker("node", "ls", "--format", "{{.Hostname}}={{.ManagerStatus}}", check=False)
        return dict(line.partition("=")[::2] for line in listed.splitlines()).get(node, "?")

    # -- services ----------------------------------------------------------------------------------

    def network(self, name: str, *options: str) -> None:
        self.docker("network", "create", "-d", "overlay", *options, name)
        self.networks.append(name)

    def service(self, name: str, *options: str, image: str = APP_IMAGE, command: Iterable[str] = ()) -> None:
        """`docker service create`, and wait until its tasks run."""
        argv = ["service", "create", "--detach", "--no-resolve-image", "--name", name]
        self.docker(*argv, "--stop-grace-period", "2s", *options, image, *command)
        self.services.append(name)
        self.settled(name)

    def scale(self, name: str, replicas: int) -> None:
        self.docker("service", "scale", "--detach", f"{name}={replicas}")
        self.settled(name, replicas)

    def settled(self, name: str, replicas: int | None = None) -> None:
        """As many tasks run as are asked for, and no other container of the service is left."""

        def look() -> bool:
            shown = self.docker(
                "service", "ls", "--filter", f"name={name}", "--format", "{{.Name}} {{.Replicas}}"
            )
            counts = [line.split()[1] for line in shown.splitlines() if line.split()[0] == name]
            have, want = map(int, counts[0].split("/"))
            return have == want and (replicas is None or want == replicas) and len(self.boxes(name)) == want

        eventually(look, f"{name} settled", 90)

    def boxes(self, service: str, nodes: Iterable[str] = NODES) -> list[Box]:
        """The running containers of a service, on every node that can be asked."""
        label = f"label=com.docker.swarm.service.name={service}"
        script = f"docker ps -q --filter {label} | xargs -r docker inspect --format '{{{{json .}}}}'"
        found = ((node, self.on(node, "sh", "-c", script, check=False)) for node in nodes)
        boxes = (self.box(node, json.loads(line)) for node, text in found for line in text.splitlines())
        return [box for box in boxes if box is not None]

    def box(self, node: str, data: dict[str, Any]) -> Box | None:
        if not data["State"]["Running"]:  # ended between the two commands
            return None
        settings = data["NetworkSettings"]
        addresses = {name: one["IPAddress"] for name, one in settings["Networks"].items()}
        return Box(self, node, data["Id"], data["Name"].lstrip("/"), settings["SandboxKey"], addresses)

    def stack(self, name: str, text: str, folder: Path) -> None:
        file = folder / f"{name}.yml"
        file.write_text(text)
        self.docker("stack", "deploy", "--resolve-image", "never", "-c", str(file), name)
        self.stacks.append(name)

    # -- what users see ----------------------------------------------------------------------------

    def get(self, host: str, port: int = 80, path: str = "/", *, seconds: int = 5) -> dict[str, Any] | None:
        """GET from the outside client; None when there is no answer. `host`: node or address."""
        url = f"http://{FRONT.get(host, host)}:{port}{path}"
        out = self.client("curl", "-s", "-m", str(seconds), url, check=False)
        return json.loads(out) if out.startswith("{") else None

    def served_by(self, host: str, count: int, port: int = 80, path: str = "/") -> dict[str, int]:
        """How many of `count` new connections each container answered; "" counts failures.

        Through the two-tier application's `/upstream` it is the inner one that counts.
        """
        urls = [f"http://{FRONT.get(host, host)}:{port}{path}"] * count
        # curl keeps connections; each request is to be a new one.
        out = self.client("curl", "-s", "-m", "5", "-H", "Connection: close", *urls, check=False)
        answers = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        seen = Counter(one.get("answer", one).get("hostname", "") for one in answers)
        if failed := count - len(answers):
            seen[""] += failed
        return dict(seen)

    # -- tidying -----------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Remove what the test made and wait until it is gone."""
        for stack in self.stacks:
            self.docker("stack", "rm", stack, check=False)
        if self.services:
            self.docker("service", "rm", *self.services, check=False)
        for service in self.services:
            eventually(lambda name=service: not self.boxes(name), f"{service} is gone")  # type: ignore[misc]
        for network in self.networks:
            eventually(lambda name=network: self._network_gone(name), f"network {network} is gone")  # type: ignore[misc]
        self.services, self.networks, self.stacks = [], [], []

    def _network_gone(self, name: str) -> bool:
        self.docker("network", "rm", name, check=False)
        return name not in self.docker("network", "ls", "--format", "{{.Name}}").split()
