"""One machine of the Swarm: an engine with cables and a disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from . import wire
from .cgroups import remove_cgroups
from .engine import Engine
from .forge import copy_images, engine_tree
from .places import CLIENT_ADDRESS, Machine, Places, Shape


@dataclass(frozen=True, slots=True)
class Node:
    machine: Machine
    engine: Engine
    places: Places

    @property
    def name(self) -> str:
        return self.machine.name

    def install(self, forge: Engine, shape: Shape) -> None:
        """Make the disk of a machine never booted."""
        shutil.rmtree(self.engine.folder, ignore_errors=True)
        self.engine.format_disk()
        copy_images(forge, self.engine.docker_root)
        names = "".join(f"{other.front} {other.name}\n" for other in shape.machines())
        self.engine.write_etc("hosts", f"127.0.0.1 localhost\n{names}")
        self.engine.write_etc("hostname", f"{self.name}\n")
        self.engine.write_etc("resolv.conf", f"nameserver {CLIENT_ADDRESS}\n")

    def boot(self) -> None:
        """Power on; with the disk of before if there was one."""
        dockerd = ["--storage-driver=overlay2", "--exec-opt=native.cgroupdriver=cgroupfs"]
        cgroup = f"{self.places.cgroup}/{self.name}"
        self.engine.boot(
            [*dockerd, f"--cgroup-parent={cgroup}"], lambda pid: wire.plug(self.places, self.machine, pid)
        )

    def power_off(self) -> None:
        """A power loss: the cables are dead first, so that no engine says good-bye."""
        wire.unplug(self.places, self.machine)
        self.engine.power_off()
        remove_cgroups(f"{self.places.cgroup}/{self.name}")


def all_nodes(places: Places, shape: Shape) -> list[Node]:
    tree = engine_tree(shape.engine, places)
    return [Node(machine, _engine(places, machine, tree), places) for machine in shape.machines()]


def _engine(places: Places, machine: Machine, tree: Path | None) -> Engine:
    network = {"FRONT": f"{machine.front}/24", "BACK": f"{machine.back}/24", "GATEWAY": CLIENT_ADDRESS}
    return Engine(machine.name, places.state / machine.name, tree, str(places.state), network)
