"""The machine's two disks.

The system: a Debian tree with its kernel, made once and kept. It is never written to (snapshot).
The lab: the source, and what `lab up` needs to build and download nothing, because the machine has no
network: the images that the host's forge has built natively. It is made for each `up`, in some seconds.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from swarmlab import forge, wheels
from swarmlab.errors import LabError
from swarmlab.memory import alone
from swarmlab.packages import COMMANDS, TOOLS
from swarmlab.places import CHECKOUT
from swarmlab.places import places as lab_places
from swarmlab.shell import run, works
from swarmlab.trees import Tree

from .places import Places

HERE = Path(__file__).parent
KERNEL = ("linux-image-cloud-amd64", "initramfs-tools", "udev", "kmod", "zstd")
INSIDE = ("python3", "docker-cli", "ipvsadm", "tini", "procps", "ca-certificates")
ALIASES = {"dnsutils": "bind9-dnsutils"}  # names of old that apt understands and debootstrap does not
OF_THE_LAB = {ALIASES.get(name, name) for name in (*TOOLS.values(), *COMMANDS.values())}
SYSTEM = Tree("system", "trixie", tuple(sorted({*OF_THE_LAB, *KERNEL, *INSIDE})))
ROOM_MIB = 6144  # free on each disk; the files are sparse
SOURCES = ("pyproject.toml", "README.md", "mesh", "sidecar", "deploy", "tests", "benchmarks")
PATIENCE = {
    "interval: 5s": "interval: 60s",
    "timeout: 5s": "timeout: 50s",
    "start_period: 30s": "start_period: 600s",
}
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "out")


def system(places: Places) -> tuple[Path, Path, Path]:
    """Kernel, initrd and root disk."""
    tree = SYSTEM.make(places.cache)
    parts = [HERE / "init.sh", HERE / "agent.py"]
    digest = hashlib.sha256(b"\0".join([SYSTEM.fingerprint.encode(), *(part.read_bytes() for part in parts)]))
    disk = places.cache / f"system-{digest.hexdigest()[:12]}.ext4"
    if not disk.exists():
        for old in places.cache.glob("system-*.ext4"):
            old.unlink()
        shutil.copy2(HERE / "init.sh", tree / "usr/local/sbin/vm-init")
        shutil.copy2(HERE / "agent.py", tree / "usr/local/lib/vm-agent.py")
        (tree / "lab").mkdir(exist_ok=True)
        make(tree, disk)
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    (initrd,) = (tree / "boot").glob("initrd.img-*")
    return kernel, initrd, disk


def lab(places: Places) -> Path:
    """The lab's disk: checkout, token, and a warm cache for `tests/lab/lab`."""
    stage = places.state / "stage"
    home = lab_places()
    with alone(home):
        built = forge.heat(home, "trixie")
        # The machine's own Debian is trixie, and the lab calls the engine of its host "bookworm".
        warm = stage / "cache/forge-bookworm"
        (warm / "docker").mkdir(parents=True)
        for piece in forge.IMAGE_STORE:
            copy(built.docker_root / piece, warm / "docker" / piece)
        shutil.copy2(built.folder / "stamp.json", warm / "stamp.json")
        wheelhouse = wheels.wheelhouse(home.cache)
        copy(wheelhouse, stage / "cache" / wheelhouse.name)
    for source in SOURCES:
        origin, target = CHECKOUT / source, stage / "checkout" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, target, ignore=LEFT_OUT)
        else:
            shutil.copy2(origin, target)
    slow_down(stage / "checkout/deploy/stack.yml")
    shutil.copy2(places.token, stage / "token")
    make(stage, places.lab_disk)
    shutil.rmtree(stage)
    return places.lab_disk


def slow_down(stack: Path) -> None:
    """Give the check of the sidecar's health the time that emulation takes: a start is a minute or two."""
    text = stack.read_text()
    for usual, slow in PATIENCE.items():
        if usual not in text:
            raise LabError(f"{stack.name} has no line `{usual}`: see PATIENCE")
        text = text.replace(usual, slow)
    stack.write_text(text)


def copy(origin: Path, target: Path) -> None:
    """As hard links where that goes: they are only read."""
    if not works(["cp", "-al", origin, target]):
        shutil.rmtree(target, ignore_errors=True)
        run(["cp", "-a", origin, target])


def make(folder: Path, disk: Path) -> None:
    """A file system with what is in the folder, without mounting anything."""
    print(f"vm: making {disk.name}", file=sys.stderr, flush=True)
    used = int(run(["du", "-s", "--block-size=1M", folder]).split()[0])
    part = disk.with_suffix(".part")
    part.unlink(missing_ok=True)
    options = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"]
    run(["mke2fs", *options, "-d", folder, part, f"{used + ROOM_MIB}M"], timeout=600)
    part.rename(disk)
