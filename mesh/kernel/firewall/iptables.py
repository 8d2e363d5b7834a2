"""The host's iptables: which programs hold its rules; reading and changing a filter table.

A host's rules live in the nft back end, in the legacy one, or in both (Docker's engine was moved from one
to the other); for IPv4 and IPv6 apart. A packet has to pass the chains of both, so each back end is treated
by itself.
"""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass

from mesh.errors import KernelError
from mesh.kernel.firewall.filter_table import Family, FilterTable, parse
from mesh.kernel.firewall.nft_listing import filter_table
from mesh.net.netns import Namespace

PROGRAM_SECONDS = 10.0  # iptables waits for its lock, held by dockerd while it reprograms many ports
LOCK_SECONDS = "5"
INCOMPATIBLE = "' is incompatible, use 'nft' tool"  # said by iptables-save instead of the table


@dataclass(frozen=True, slots=True)
class Backend:
    """One back end's rules of one family. `program`: its iptables; `-save` and `-restore` stand beside it."""

    family: Family
    program: str
    legacy: bool = False
    namespace: str | None = None  # path of the network namespace; None: the one we run in

    async def save(self) -> str:
        """The filter table as text; nothing of it is made that was not there. KernelError."""
        return await run_program(self._inside(f"{self.program}-save", "-t", "filter"))

    async def table(self) -> FilterTable:
        """What it holds. Where somebody has put in rules by `nft` that iptables cannot show, as nft shows it.
        KernelError."""
        saved = await self.save()
        if INCOMPATIBLE not in saved:
            return parse(saved)
        name = ("ip" if self.family is Family.IPV4 else "ip6", "filter")
        listed = await run_program(self._inside("nft", "--json", "list", "table", *name))
        text = await run_program(self._inside("nft", "-a", "list", "table", *name))
        try:
            return filter_table(json.loads(listed), text)
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
            raise KernelError(f"the listing of nft cannot be read: {error}") from error

    async def restore(self, script: str) -> None:
        """Apply commands of one `*filter … COMMIT` block, all or none of them. KernelError."""
        await run_program(self._inside(f"{self.program}-restore", "--noflush", "-w", LOCK_SECONDS), script)

    def _inside(self, *command: str) -> list[str]:
        enter = [] if self.namespace is None else ["nsenter", f"--net={self.namespace}"]
        return [*enter, *command]


def backends(family: Family, namespace: str | None = None) -> list[Backend]:
    """The back ends that may hold rules of the family; none where no program is installed."""
    name = "iptables" if family is Family.IPV4 else "ip6tables"
    programs = [one for one in (f"{name}-nft", name) if shutil.which(f"{one}-save")][:1]
    found = [Backend(family, one, False, namespace) for one in programs]
    if legacy_in_use(family, namespace) and shutil.which(f"{name}-legacy-save"):
        found.append(Backend(family, f"{name}-legacy", True, namespace))
    return found


def legacy_in_use(family: Family, namespace: str | None = None) -> bool:
    """Has the namespace a legacy filter table? (Listing one where there is none would create it.)"""
    name = "ip_tables_names" if family is Family.IPV4 else "ip6_tables_names"

    def read() -> bool:
        try:
            with open(f"/proc/thread-self/net/{name}", encoding="ascii") as file:
                return "filter" in file.read().split()
        except OSError:
            return False

    return Namespace(namespace).call(read)


async def run_program(command: list[str], given: str = "") -> str:
    """What it printed; KernelError when it fails or does not end in time."""
    return await asyncio.to_thread(_run_now, command, given)


def _run_now(command: list[str], given: str) -> str:
    try:
        done = subprocess.run(
            command,
            input=given.encode(),
            capture_output=True,
            timeout=PROGRAM_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise KernelError(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"{command[0]} did not end within {PROGRAM_SECONDS:.0f} s") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip() or f"exit {done.returncode}"
        raise KernelError(f"{shlex.join(command)}: {why}")
    return done.stdout.decode(errors="replace")
