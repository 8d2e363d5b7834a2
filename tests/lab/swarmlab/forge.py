"""An engine of its own, in the cache folder, that only builds images.

It keeps its build cache between labs, and a new node's disk starts as a copy of its image store (the layers
as hard links: nobody writes to a layer). That is faster than `docker load` on each node, and a node can
build upon it: after a change of the source each node builds just the last layer.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from . import context
from .cgroups import remove_cgroups
from .context import Context
from .engine import Engine
from .images import BASE_TAG, build, import_base
from .places import CHECKOUT, Places
from .shell import run, works
from .trees import BASE, ENGINE
from .wheels import wheelhouse

IMAGE_STORE = ("image", "overlay2")
DOCKERD = ("--storage-driver=overlay2", "--bridge=none", "--iptables=false", "--ip6tables=false")


def engine_tree(engine: str, places: Places) -> Path | None:
    """What an engine of that kind runs from: a tree, or (None) the host's own Debian."""
    return ENGINE.make(places.cache) if engine == "trixie" else None


def contexts(places: Places) -> list[Context]:
    """The images built on the base. Without the product's source there is only the application."""
    wanted = [context.application()]
    if all((CHECKOUT / source).exists() for source in context.SOURCES):
        wanted.append(context.sidecar(wheelhouse(places.cache)))
    return wanted


def heat(places: Places, kind: str) -> Engine:
    """Return the forge, cold again, with all images made."""
    folder = places.cache / f"forge-{kind}"
    forge = Engine("forge", folder, engine_tree(kind, places), str(places.state))
    stamp = folder / "stamp.json"
    wanted = contexts(places)
    prints = {BASE_TAG: BASE.fingerprint, **{image.tag: image.fingerprint for image in wanted}}
    if stamp.exists() and json.loads(stamp.read_text()) == prints:
        return forge
    BASE.make(places.cache)
    print("lab: building images", file=sys.stderr, flush=True)
    forge.power_off()  # one left behind by a lab that was interrupted
    cgroup = f"{places.cgroup}/forge"
    try:
        forge.boot([*DOCKERD, f"--cgroup-parent={cgroup}"])
        import_base(forge, places.cache)
        for image in wanted:
            build(forge, image)
        forge.docker("image", "prune", "-f")
        forge.shut_down()
    finally:
        forge.power_off()
        remove_cgroups(cgroup)
    stamp.write_text(json.dumps(prints))
    return forge


def copy_images(forge: Engine, disk: Path) -> None:
    """Give a new machine's /var/lib/docker the forge's images."""
    for piece in IMAGE_STORE:
        source, target = forge.docker_root / piece, disk / piece
        if piece == "overlay2" and works(["cp", "-al", source, target]):
            continue
        shutil.rmtree(target, ignore_errors=True)
        run(["cp", "-a", source, target])
