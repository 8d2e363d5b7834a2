"""One dockerd in namespaces of its own (mount, net, uts, ipc, pid).

Its process 1 is node-init.sh, then docker-init with dockerd below. Everything the engine starts lives in
the PID namespace, so that one SIGKILL is a power loss and nothing can stay behind. The namespaces have no
name: they are entered through process 1, whose number and start time are in the file `pid`.
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from .errors import LabError
from .places import CHECKOUT
from .processes import MARK, alive, start_time
from .shell import run, wait_until

INIT = Path(__file__).with_name("node-init.sh")
READY_SECONDS = 60.0
STOP_SECONDS = 30.0
LOG_TAIL = 2000
DOCKER_HOST = "unix:///var/run/docker.sock"
# The distribution's docker comes first.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
ENTER = 'cd "$1" 2>/dev/null || cd /; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Engine:
    """`folder` is its disk and outlives a power loss; `tree` is what it runs from (None: the host)."""

    name: str
    folder: Path
    tree: Path | None
    mark: str
    network: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def docker_root(self) -> Path:
        return self.folder / "docker"

    def format_disk(self) -> None:
        """Make the empty folders of a machine never booted."""
        for piece in ("docker", "root", "upper/etc", "upper/opt", "work/etc", "work/opt"):
            (self.folder / piece).mkdir(parents=True, exist_ok=True)

    def write_etc(self, name: str, text: str) -> None:
        """A file in the machine's private /etc. Call it before `boot`."""
        (self.folder / "upper/etc" / name).write_text(text)

    # --- life

    def boot(self, dockerd: Sequence[str], plug: Callable[[int], None] = lambda pid: None) -> None:
        """Start the machine; `plug` brings its cables, given process 1. Returns when the engine answers."""
        self.format_disk()
        self.log.write_bytes(b"")
        binds = [path for path in ("/lib/modules", "/tmp", str(CHECKOUT)) if Path(path).is_dir()]
        env = {
            **os.environ,
            MARK: self.mark,
            "NAME": self.name,
            "FOLDER": str(self.folder),
            "TREE": str(self.tree or ""),
            "BINDS": " ".join(binds),
            **{"FRONT": "", "BACK": "", "GATEWAY": "", **self.network},
        }
        spaces = ["--mount", "--net", "--uts", "--ipc", "--pid", "--fork"]
        process = subprocess.Popen(
            ["unshare", *spaces, str(INIT), *dockerd],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        assert process.stdin
        assert process.stdout
        try:
            pid = int(process.stdout.readline() or 0)
        finally:
            process.stdout.close()
        if not pid:
            raise LabError(f"{self.name}: unshare cannot make namespaces; a restricted container?")
        (self.folder / "pid").write_text(f"{pid} {start_time(pid)}")
        plug(pid)
        process.stdin.write(b"go\n")
        process.stdin.close()
        self.wait_ready()

    def wait_ready(self) -> None:
        def ready() -> bool:
            if not self.running():
                raise LabError(f"{self.name}: the engine ended at once; its log ends with\n{self.log_tail()}")
            return self.answers()

        wait_until(ready, READY_SECONDS, lambda: f"{self.name}: no answer from dockerd\n{self.log_tail()}")

    def answers(self) -> bool:
        """True if the API answers a ping."""
        connection = http.client.HTTPConnection("docker", timeout=5)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(f"/proc/{self.pid()}/root/run/docker.sock")
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        except (OSError, LabError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def shut_down(self) -> None:
        """Ask dockerd to end and wait for it."""
        if self.running():
            os.kill(self.pid(), signal.SIGTERM)
            self._wait_off("dockerd does not stop")

    def power_off(self) -> None:
        """Everything in the machine is gone at once."""
        if self.running():
            os.kill(self.pid(), signal.SIGKILL)
            self._wait_off("does not die")

    def _wait_off(self, otherwise: str) -> None:
        wait_until(lambda: not self.running(), STOP_SECONDS, lambda: f"{self.name}: {otherwise}")

    def running(self) -> bool:
        recorded = self._recorded()
        return recorded is not None and alive(*recorded)

    def pid(self) -> int:
        """Process 1 as the host sees it. LabError when the machine is off."""
        recorded = self._recorded()
        if recorded is None or not alive(*recorded):
            raise LabError(f"{self.name} is not running")
        return recorded[0]

    def _recorded(self) -> tuple[int, int] | None:
        try:
            pid, started = (self.folder / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid), int(started)

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:] if self.log.exists() else "(no log)"

    # --- use

    def enter(self, command: Sequence[str], folder: str = "/") -> list[str]:
        """The words that run a command inside, in `folder` if that exists there."""
        spaces = ["--mount", "--net", "--uts", "--ipc", "--pid"]
        environment = ["/usr/bin/env", f"PATH={PATH}", f"DOCKER_HOST={DOCKER_HOST}"]
        inside = [*environment, "sh", "-c", ENTER, "sh", folder]
        return ["nsenter", f"--target={self.pid()}", *spaces, *inside, *command]

    def docker(
        self, *words: str, stdin: IO[bytes] | None = None, check: bool = True, timeout: float | None = None
    ) -> str:
        """Run the docker CLI inside; the legacy builder, since buildkit without buildx is not to be had."""
        command = self.enter(["env", "DOCKER_BUILDKIT=0", "/usr/bin/docker", *words], str(CHECKOUT))
        return run(command, stdin=stdin, check=check, timeout=timeout)
