"""The commands of `lab`. Each is a few lines that say what happens in which order."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from . import cleanup, deploy, forge, packages, swarm, upstream, wire
from .engine import Engine
from .errors import LabError
from .memory import Memory, alone, recall, remember, require
from .node import Node, all_nodes
from .places import NODES_LIMIT, Places, Shape, places
from .processes import MARK
from .shell import in_parallel

ENGINES = ("bookworm", "trixie")


def main(words: Sequence[str]) -> int:
    arguments = parser().parse_args(words)
    try:
        require_linux_root()
        command: Callable[[Places, argparse.Namespace], None] = arguments.command
        command(places(), arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def require_linux_root() -> None:
    if not sys.platform.startswith("linux"):
        raise LabError("the lab needs Linux: it is made of network namespaces")
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes namespaces and mounts")


# --- the whole lab


def setup(here: Places, arguments: argparse.Namespace) -> None:
    with alone(here):
        installed = packages.setup()
    say("installed " + ", ".join(installed) if installed else "everything is installed")


def up(here: Places, arguments: argparse.Namespace) -> None:
    if wanted := packages.missing():
        raise LabError(f"missing: {', '.join(wanted)}; run `tests/lab/lab setup`")
    started = time.monotonic()
    with alone(here):
        known = recall(here)
        whole = known is not None and known.whole and wire.laid(here)
        shape = shape_of(arguments, known.shape if known and whole else Shape())
        if known and whole:
            return repair(here, known.shape, shape)
        cleanup.tear_down(here)
        remember(here, Memory(shape, whole=False))
        source = forge.heat(here, shape.engine)
        nodes = all_nodes(here, shape)
        wire.lay(here)
        upstream.start(here)
        in_parallel(lambda node: start_new(node, source, shape), nodes)
        swarm.gather(nodes)
        remember(here, Memory(shape, whole=True))
    say(f"up in {time.monotonic() - started:.1f} s: {', '.join(node.name for node in nodes)}")
    return None


def shape_of(arguments: argparse.Namespace, default: Shape) -> Shape:
    """What was asked for; what was not said is as it is."""
    asked = {name: getattr(arguments, name) for name in ("nodes", "managers", "engine")}
    shape = replace(default, **{name: value for name, value in asked.items() if value is not None})
    if not 1 <= shape.managers <= shape.nodes <= NODES_LIMIT:
        raise LabError(f"1 to {NODES_LIMIT} nodes, and no more managers than nodes")
    return shape


def start_new(node: Node, source: Engine, shape: Shape) -> None:
    node.install(source, shape)
    node.boot()


def repair(here: Places, known: Shape, wanted: Shape) -> None:
    """`up` on a lab that is up: start what is off."""
    if known != wanted:
        raise LabError(f"another lab is up ({known}): run `tests/lab/lab down` first")
    if not upstream.answers(here):
        upstream.start(here)
    dead = [node for node in all_nodes(here, known) if not node.engine.running()]
    in_parallel(Node.boot, dead)
    say("already up" + (", started " + ", ".join(node.name for node in dead) if dead else ""))


def down(here: Places, arguments: argparse.Namespace) -> None:
    with alone(here):
        cleanup.tear_down(here)
        if arguments.cache:
            cleanup.remove_cache(here)
    say("down")


def status(here: Places, arguments: argparse.Namespace) -> None:
    memory = recall(here)
    if memory is None:
        say("no lab is up")
        return
    nodes = all_nodes(here, memory.shape) if memory.whole else []
    rows = [
        {
            "name": node.name,
            "role": "manager" if node.machine.manager else "worker",
            "front": node.machine.front,
            "back": node.machine.back,
            "state": "on" if node.engine.running() else "off",
            "log": str(node.engine.log),
        }
        for node in nodes
    ]
    cuts = wire.cuts(here) if wire.laid(here) else []
    if arguments.json:
        print(json.dumps({"engine": memory.shape.engine, "whole": memory.whole, "nodes": rows, "cuts": cuts}))
        return
    print(
        f"engine {memory.shape.engine}, "
        + ("whole" if memory.whole else "half made: run `tests/lab/lab up` again")
    )
    for row in rows:
        print("  {name}  {role:8} {state:4} {front:14} {back:15} {log}".format(**row))
    for cut in cuts:
        print("  cut:", cut)


# --- inside


def node(here: Places, arguments: argparse.Namespace) -> None:
    target = find(here, arguments.name)
    become(here, target.engine.enter(command_of(arguments), os.getcwd()))


def client(here: Places, arguments: argparse.Namespace) -> None:
    require(here)
    become(here, wire.inside(here.client, command_of(arguments)))


def become(here: Places, command: list[str]) -> None:
    """Turn into that command: input, output and exit code are its own."""
    os.execvpe(command[0], command, {**os.environ, MARK: str(here.state)})


def command_of(arguments: argparse.Namespace) -> list[str]:
    words: list[str] = arguments.words
    words = words[1:] if words[:1] == ["--"] else words
    return words or [os.environ.get("SHELL", "/bin/sh")]


# --- images and stacks


def load(here: Places, arguments: argparse.Namespace) -> None:
    with alone(here):
        in_parallel(lambda node: load_into(node, arguments.image), running(here))


def load_into(node: Node, image: Path) -> None:
    with image.open("rb") as archive:
        say(f"{node.name}: {node.engine.docker('load', stdin=archive).strip()}")


def deploy_stack(here: Places, arguments: argparse.Namespace) -> None:
    if (arguments.stack is None) != (arguments.stack_name is None):
        raise LabError("deploy takes a stack file and a name, or neither")
    started = time.monotonic()
    with alone(here):
        nodes = running(here)
        manager = deploy.a_manager(nodes)
        if arguments.stack:
            deploy.stack(manager, arguments.stack, arguments.stack_name)
        else:
            deploy.sidecar(manager, nodes)
    say(f"deployed in {time.monotonic() - started:.1f} s")


# --- faults


def partition(here: Places, arguments: argparse.Namespace) -> None:
    known = {node.name for node in all_nodes(here, require(here).shape)} | {"client"}
    one, other = arguments.one.split(","), arguments.other.split(",")
    if strange := [name for name in (*one, *other) if name not in known]:
        raise LabError(f"no such node: {', '.join(strange)}")
    with alone(here):
        wire.partition(here, one, other)


def heal(here: Places, arguments: argparse.Namespace) -> None:
    require(here)
    with alone(here):
        wire.heal(here)


def kill(here: Places, arguments: argparse.Namespace) -> None:
    target = find(here, arguments.name)
    with alone(here):
        target.power_off()


def start(here: Places, arguments: argparse.Namespace) -> None:
    target = find(here, arguments.name)
    with alone(here):
        if target.engine.running():
            say(f"{target.name} is on already")
        else:
            target.boot()


# --- helpers


def find(here: Places, name: str) -> Node:
    nodes = {node.name: node for node in all_nodes(here, require(here).shape)}
    if name not in nodes:
        raise LabError(f"no node {name}; there are {', '.join(nodes)}")
    return nodes[name]


def running(here: Places) -> list[Node]:
    return [node for node in all_nodes(here, require(here).shape) if node.engine.running()]


def say(text: str) -> None:
    print(f"lab: {text}", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="lab", description="A real Docker Swarm on one machine, in namespaces."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, act: Callable[[Places, argparse.Namespace], None], about: str
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about)
        made.set_defaults(command=act)
        return made

    command("setup", setup, "install what the lab needs (apt), starting no service")
    made = command("up", up, "make the Swarm; start what is off if it is up")
    made.add_argument("--nodes", type=int, help=f"default {Shape().nodes}")
    made.add_argument("--managers", type=int, help=f"default {Shape().managers}")
    made.add_argument(
        "--engine", choices=ENGINES, help=f"Debian release of the engine, default {Shape().engine}"
    )
    made = command("down", down, "remove all of it")
    made.add_argument("--cache", action="store_true", help="the cache folder too")
    made = command("status", status, "what is up")
    made.add_argument("--json", action="store_true")
    made = command("node", node, "run a command on a node")
    made.add_argument("name")
    made.add_argument("words", nargs=argparse.REMAINDER, metavar="-- CMD…")
    made = command("client", client, "run a command as the outside client")
    made.add_argument("words", nargs=argparse.REMAINDER, metavar="-- CMD…")
    made = command("load", load, "load an image into all nodes")
    made.add_argument("image", type=Path)
    made = command("deploy", deploy_stack, "deploy the sidecar, or any stack")
    made.add_argument("stack", type=Path, nargs="?")
    made.add_argument("stack_name", nargs="?")
    made = command("partition", partition, "cut nodes off each other, on both networks")
    made.add_argument("one", help="a node, or several with commas")
    made.add_argument("other")
    command("heal", heal, "end all partitions")
    made = command("kill", kill, "power loss")
    made.add_argument("name")
    made = command("start", start, "power on again, with the old disk")
    made.add_argument("name")
    return top
