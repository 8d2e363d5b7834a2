"""Where the virtual machine is kept, and how large it is. Pure, but for the environment read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MEMORY_MIB = 3072  # of the host's; three engines with their sidecars need two thirds of it
# With two, a kernel died in qemu 7.2 of a breakpoint that it had set while patching its own code.
CORES = 1
NICE = 10  # emulation takes all it can get
LAB = "/lab"  # inside: the mount point of the lab's disk
CHECKOUT = f"{LAB}/checkout"  # inside: this source


@dataclass(frozen=True, slots=True)
class Places:
    """The two folders that the machine is kept in; nothing else on the host is touched."""

    state: Path
    cache: Path

    @property
    def token(self) -> Path:
        """The secret that the agent asks for: the channel is a TCP port of the host's loopback."""
        return self.state / "token"

    @property
    def port(self) -> Path:
        return self.state / "port"

    @property
    def pid(self) -> Path:
        return self.state / "pid"

    @property
    def console(self) -> Path:
        return self.state / "console.log"

    @property
    def lab_disk(self) -> Path:
        return self.state / "lab.ext4"


def places() -> Places:
    """From MESH_VM_DIR and MESH_VM_CACHE, or the defaults."""
    state = Path(os.environ.get("MESH_VM_DIR") or "/var/lib/mesh-vm")
    cache = Path(os.environ.get("MESH_VM_CACHE") or "/var/cache/mesh-vm")
    return Places(state.absolute(), cache.absolute())
