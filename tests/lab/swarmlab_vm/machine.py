"""qemu: power on, power off. Everything is emulated (TCG): it needs neither KVM nor a network of the host.

Its only way to the world is one TCP port on the host's loopback that leads to the agent.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
from pathlib import Path

from swarmlab.errors import LabError
from swarmlab.processes import alive, start_time
from swarmlab.shell import wait_until

from .agent import PORT
from .channel import answers
from .places import CORES, MEMORY_MIB, NICE, Places

CPU = "max,-cx16"  # qemu 7.2 emulates cmpxchg16b without lock such that it writes nonsense into the flags
BOOT_OPTIONS = (
    "root=/dev/vda rw init=/usr/local/sbin/vm-init console=ttyS0 loglevel=4 mitigations=off "
    "panic=-1"  # a kernel that dies ends qemu, so that nobody waits for it
)
BOOT_SECONDS = 300.0
END_SECONDS = 30.0
LOG_TAIL = 2000


def prepare(places: Places) -> None:
    """A new, empty state folder with a secret."""
    places.state.mkdir(parents=True)
    places.token.touch(mode=0o600)
    places.token.write_text(secrets.token_hex(16))


def boot(places: Places, kernel: Path, initrd: Path, system: Path, lab: Path) -> None:
    """Power on; returns when the agent runs commands."""
    port = free_port()
    command = [
        "nice", "-n", str(NICE), "qemu-system-x86_64",
        "-accel", "tcg", "-cpu", CPU, "-smp", str(CORES), "-m", f"{MEMORY_MIB}M",
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-serial", f"file:{places.console}",
        "-kernel", str(kernel), "-initrd", str(initrd),
        "-append", BOOT_OPTIONS,
        "-drive", f"file={system},if=virtio,format=raw,snapshot=on",
        "-drive", f"file={lab},if=virtio,format=raw,cache=unsafe",
        "-netdev", f"user,id=agent,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{PORT}",
        "-device", "virtio-net-pci,netdev=agent",
    ]  # fmt: skip
    with (places.state / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "TMPDIR": str(places.state)},  # for what changes on the system's disk
        )  # fmt: skip
    places.pid.write_text(f"{process.pid} {start_time(process.pid)}")
    places.port.write_text(str(port))

    def ready() -> bool:
        if process.poll() is not None:
            raise LabError(f"qemu ended at once\n{said(places)}")
        return answers(places)

    wait_until(ready, BOOT_SECONDS, lambda: f"the machine does not come up\n{said(places)}")


def running(places: Places) -> bool:
    recorded = _recorded(places)
    return recorded is not None and alive(*recorded)


def power_off(places: Places) -> None:
    recorded = _recorded(places)
    if recorded is not None and alive(*recorded):
        os.kill(recorded[0], signal.SIGKILL)
        wait_until(lambda: not alive(*recorded), END_SECONDS, lambda: "qemu does not die")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def said(places: Places) -> str:
    """The end of what qemu and the machine's console said."""
    files = [places.state / "qemu.log", places.console]
    return "\n".join(file.read_text(errors="replace")[-LOG_TAIL:] for file in files if file.exists())


def _recorded(places: Places) -> tuple[int, int] | None:
    try:
        pid, started = places.pid.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid), int(started)
