"""What the lab needs from apt, installed without starting a single service.

Debian asks /usr/sbin/policy-rc.d before it starts a service on installation; ours says no (101) and goes when
apt is done. A policy that was there before is put back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LabError
from .shell import run

TOOLS = {  # program → Debian package
    "/usr/sbin/dockerd": "docker.io",
    "/usr/bin/docker": "docker.io",
    "/usr/bin/docker-init": "docker.io",
    "/usr/sbin/debootstrap": "debootstrap",
    "/usr/sbin/nft": "nftables",
    "/usr/sbin/iptables": "iptables",
    "/usr/bin/dig": "dnsutils",
    "/usr/bin/curl": "curl",
    "/usr/bin/chromium": "chromium",
    "/usr/bin/pebble": "pebble",
    "/usr/bin/ping": "iputils-ping",
    "/usr/sbin/haproxy": "haproxy",
    "/usr/sbin/dnsmasq": "dnsmasq-base",
    "/usr/sbin/conntrack": "conntrack",
}
COMMANDS = {  # program, wherever it is → Debian package
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
    "tar": "tar",
}
POLICY = Path("/usr/sbin/policy-rc.d")
REFUSE = "#!/bin/sh\nexit 101\n"


def missing() -> list[str]:
    """The packages that are not there, each once."""
    by_path = [package for path, package in TOOLS.items() if not Path(path).exists()]
    by_name = [package for name, package in COMMANDS.items() if not shutil.which(name)]
    return sorted({*by_path, *by_name})


def setup() -> list[str]:
    """Install what is missing; return what was installed."""
    wanted = missing()
    if not wanted:
        return []
    if not shutil.which("apt-get"):
        raise LabError("the lab needs Debian or Ubuntu (apt-get) to install " + ", ".join(wanted))
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with no_service_starts():
        run(["apt-get", "update", "-q"], env=env)
        run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted], env=env)
    if still := missing():
        raise LabError("still missing after apt-get install: " + ", ".join(still))
    return wanted


@contextmanager
def no_service_starts() -> Iterator[None]:
    """While inside, installing a package starts no service."""
    before = (POLICY.read_bytes(), POLICY.stat().st_mode) if POLICY.exists() else None
    POLICY.write_text(REFUSE)
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        if before is None:
            POLICY.unlink()
        else:
            POLICY.write_bytes(before[0])
            POLICY.chmod(before[1])
