"""The commands of `vm`: a few of its own, all others are the lab's and run inside.

`vm up` powers the machine on and runs `lab up` in it; `vm node …`, `vm client …`, `vm deploy` and whatever
else the lab knows are passed to it as they are.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Sequence

from swarmlab import packages
from swarmlab.errors import LabError
from swarmlab.shell import run

from . import channel, disks, machine
from .places import CHECKOUT, Places, places

QEMU = {"qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs", "debootstrap": "debootstrap"}
NODES = ("--nodes", "2")  # as many as it takes for a task to be elsewhere
USAGE = """usage: vm COMMAND
  setup         install what the virtual machine needs (apt), starting no service
  up [OPTIONS]  power on and make the Swarm inside (default --nodes 2); OPTIONS are those of `lab up`
  run -- CMD…   run a command in the machine, outside of any node
  down [--cache]  power off and leave nothing; with --cache not even the system's disk
  status, deploy, node, client, load, partition, heal, kill, start: as the lab's, inside
"""


def main(words: Sequence[str]) -> int:
    name, rest = (words[0], list(words[1:])) if words else ("", [])
    here = places()
    try:
        if name not in COMMANDS and name not in PASSED:
            print(USAGE, end="", file=sys.stderr)
            return 0 if name in ("-h", "--help") else 2
        if os.geteuid() != 0:
            raise LabError("the virtual machine's disks need root: they have files of all owners")
        return COMMANDS[name](here, rest) if name in COMMANDS else lab(here, [name, *rest])
    except LabError as error:
        print(f"vm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def setup(here: Places, words: list[str]) -> int:
    wanted = missing()
    if wanted or packages.missing():
        packages.setup()  # the forge on the host builds the images
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        with packages.no_service_starts():
            run(["apt-get", "update", "-q"], env=environment)
            run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted], env=environment)
    say("everything is installed")
    return 0


def missing() -> list[str]:
    return sorted({package for program, package in QEMU.items() if not shutil.which(program)})


def up(here: Places, words: list[str]) -> int:
    if wanted := [*missing(), *packages.missing()]:
        raise LabError(f"missing: {', '.join(wanted)}; run `tests/lab/vm setup`")
    if not machine.running(here):
        down(here, [])
        here.cache.mkdir(parents=True, exist_ok=True)
        machine.prepare(here)
        kernel, initrd, system = disks.system(here)
        lab_disk = disks.lab(here)
        started = time.monotonic()
        machine.boot(here, kernel, initrd, system, lab_disk)
        say(f"powered on in {time.monotonic() - started:.1f} s")
    return lab(here, ["up", *(words or NODES)])


def down(here: Places, words: list[str]) -> int:
    machine.power_off(here)
    shutil.rmtree(here.state, ignore_errors=True)
    if "--cache" in words:
        shutil.rmtree(here.cache, ignore_errors=True)
    return 0


def inside(here: Places, words: list[str]) -> int:
    command = words[1:] if words[:1] == ["--"] else words
    return passed(here, command or ["sh"])


def lab(here: Places, words: list[str]) -> int:
    return passed(here, [f"{CHECKOUT}/tests/lab/lab", *words])


def passed(here: Places, argv: Sequence[str]) -> int:
    streams = (sys.stdin.buffer, sys.stdout.buffer, sys.stderr.buffer)
    return channel.call(here, argv, *streams, folder=CHECKOUT)


def say(text: str) -> None:
    print(f"vm: {text}", file=sys.stderr, flush=True)


COMMANDS = {"setup": setup, "up": up, "run": inside, "down": down}
PASSED = ("status", "deploy", "node", "client", "load", "partition", "heal", "kill", "start")
