"""Debian trees made once with debootstrap and kept in the cache.

A tree's folder carries a fingerprint of what is in it and appears under its name only when it is whole.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .shell import run

LUGGAGE = (  # in no image's interest: package lists, caches, documentation, translations
    "var/lib/apt/lists", "var/cache/apt", "var/cache/debconf", "var/log", "usr/share/doc", "usr/share/man",
    "usr/share/info", "usr/share/locale", "usr/share/i18n/locales",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tree:
    name: str
    suite: str
    packages: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(repr((self.suite, self.packages, LUGGAGE)).encode()).hexdigest()[:12]

    def folder(self, cache: Path) -> Path:
        return cache / "trees" / f"{self.name}-{self.fingerprint}"

    def make(self, cache: Path) -> Path:
        """Return the tree's folder, made now if it is not there (under a minute)."""
        folder = self.folder(cache)
        if folder.exists():
            return folder
        print(f"lab: debootstrap of the {self.name} tree, {self.suite} (once)", file=sys.stderr, flush=True)
        raw = folder.with_suffix(".part")
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True)
        include = "--include=" + ",".join(self.packages)
        run(["debootstrap", "--variant=minbase", include, self.suite, raw, mirror()], timeout=1800)
        for piece in LUGGAGE:
            shutil.rmtree(raw / piece, ignore_errors=True)
            (raw / piece).mkdir(parents=True)
        raw.rename(folder)
        return folder


def mirror() -> str:
    """The Debian mirror that this machine's own packages come from, by its apt sources."""
    targets = run(["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL) $(COMPONENT)"])
    for line in targets.splitlines():
        address, origin, label, component = (*line.split(" "), "", "", "")[:4]
        if (origin, label, component) == ("Debian", "Debian", "main"):
            return address
    raise LabError("apt's sources name no Debian mirror (after `apt-get update`): the lab's trees need one")


BASE = Tree("base", "trixie", ("python3", "python3-venv", "nftables", "iptables", "ca-certificates"))
ENGINE = Tree("engine", "trixie", (
    "docker.io", "docker-cli", "nftables", "iptables", "iproute2", "ca-certificates", "conntrack",
    "bind9-dnsutils", "curl", "iputils-ping", "procps", "python3", "tini",
))  # fmt: skip
