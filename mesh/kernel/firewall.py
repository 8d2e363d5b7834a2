"""Letting redirected traffic pass Docker's FORWARD policy (DROP): one accepting rule in DOCKER-USER.

DOCKER-USER is the chain Docker keeps for others and never flushes. It lives in the nft or the legacy back end
of iptables, as the host's engine chose; the rule goes where the chain is. Only connections that were DNATed
may pass, only to the ingress namespace: nothing becomes reachable that is not published.
"""

import asyncio
import os
import shlex
import shutil
from collections.abc import Sequence
from itertools import pairwise

from mesh.errors import KernelError

CHAIN = "DOCKER-USER"
COMMENT = "mesh"
LEGACY_TABLES = "/proc/net/ip_tables_names"  # touching the legacy back end where it is unused would create it
PROGRAM_SECONDS = 10.0  # iptables waits for its lock, held by dockerd while it reprograms many ports
LOCK_SECONDS = "5"
MISSING = "no iptables program is installed: published ports may be dropped by Docker's FORWARD policy"


class Firewall:
    """The accepting rule in the namespace we run in (the host's)."""

    async def allow(self, sandbox: str, bridge: str) -> bool:
        """Make sure redirected connections to the address may pass. True if a rule had to be made.

        KernelError: FORWARD drops and there is no chain for us, or iptables is missing.
        """
        program = await self._program()
        if program is None:
            await self._must_accept()
            return False
        rule = accepting(sandbox, bridge)
        present = await self._rules(program)
        for stale in present:
            if _normal(stale) != _normal(rule):
                await _must([program, "-w", LOCK_SECONDS, "-D", *stale])
        if any(_normal(one) == _normal(rule) for one in present):
            return False
        await _must([program, "-w", LOCK_SECONDS, "-I", *rule])
        return True

    async def lets_pass(self, sandbox: str, bridge: str) -> bool:
        """Is our rule there, or needed nowhere? KernelError as of `allow`. Changes nothing."""
        program = await self._program()
        if program is None:
            await self._must_accept()
            return True
        rule = _normal(accepting(sandbox, bridge))
        return any(_normal(one) == rule for one in await self._rules(program))

    async def remove(self) -> int:
        """Take out every rule of ours, in whichever back end; returns how many there were."""
        removed = 0
        for program in _programs():
            for rule in await self._rules(program):
                await _must([program, "-w", LOCK_SECONDS, "-D", *rule])
                removed += 1
        return removed

    async def _program(self) -> str | None:
        """The iptables whose filter table has the chain."""
        programs = _programs()
        if not programs:
            raise KernelError(MISSING)
        for program in programs:
            if (await _run([program, "-w", LOCK_SECONDS, "-S", CHAIN]))[0] == 0:
                return program
        return None

    async def _must_accept(self) -> None:
        for program in _programs():
            code, output = await _run([program, "-w", LOCK_SECONDS, "-S", "FORWARD"])
            if code == 0 and "-P FORWARD DROP" in output:
                raise KernelError(f"{program}: FORWARD drops and there is no chain {CHAIN} to accept in")

    async def _rules(self, program: str) -> list[list[str]]:
        """Our rules as the arguments that follow -D: chain first."""
        code, output = await _run([program, "-w", LOCK_SECONDS, "-S", CHAIN])
        return ours(output) if code == 0 else []


def accepting(sandbox: str, bridge: str) -> list[str]:
    """The rule, without its verb."""
    match = f"-d {sandbox}/32 -o {bridge} -m conntrack --ctstate DNAT -m comment --comment {COMMENT}"
    return [CHAIN, *match.split(), "-j", "ACCEPT"]


def ours(listing: str) -> list[list[str]]:
    """Our rules in the output of `iptables -S`, known by their comment."""
    rules = (shlex.split(line) for line in listing.splitlines() if line.startswith("-A "))
    return [rule[1:] for rule in rules if _commented(rule)]


def _commented(rule: Sequence[str]) -> bool:
    return any(a == "--comment" and b == COMMENT for a, b in pairwise(rule))


def _normal(rule: Sequence[str]) -> list[str]:
    """iptables lists a rule's matches in an order of its own."""
    return sorted(rule)


def _programs() -> list[str]:
    found = [name for name in ("iptables-nft", "iptables") if shutil.which(name)][:1]
    if _legacy_in_use() and shutil.which("iptables-legacy"):
        found.append("iptables-legacy")
    return found


def _legacy_in_use() -> bool:
    try:
        with open(LEGACY_TABLES, encoding="ascii") as file:
            return "filter" in file.read().split()
    except OSError:
        return False


async def _must(command: list[str]) -> None:
    code, output = await _run(command)
    if code != 0:
        raise KernelError(f"{shlex.join(command)}: {output.strip() or f'exit {code}'}")


async def _run(command: list[str]) -> tuple[int, str]:
    """(exit code, what it printed); KernelError when it does not end in time."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(PROGRAM_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise KernelError(f"{command[0]} did not end within {PROGRAM_SECONDS:.0f} s") from error
    return process.returncode or 0, output.decode(errors="replace")
