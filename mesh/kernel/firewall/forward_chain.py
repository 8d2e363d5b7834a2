"""Letting redirected traffic pass Docker's FORWARD policy (DROP), where the operator's rules let it.

`mesh.kernel.firewall.filter_table` says which rules those are, and why the operator's come first. They go
into each back end of iptables that has Docker's chain DOCKER-USER.
"""

from collections.abc import Callable

from mesh.errors import KernelError
from mesh.kernel.firewall.filter_table import (
    USER_CHAIN,
    Family,
    FilterTable,
    plan_forward,
    plan_without_forward,
    plan_without_input,
    removals,
)
from mesh.kernel.firewall.iptables import Backend, backends

MISSING = "no iptables program is installed: published ports may be dropped by Docker's FORWARD policy"


class Firewall:
    """Our passage through FORWARD. `namespace`: path of the host's; None: the one we run in."""

    def __init__(self, namespace: str | None = None) -> None:
        self._namespace = namespace

    async def allow(self, sandbox: str, bridge: str) -> bool:
        """Make sure redirected connections to the address may pass. True if something had to be changed.

        KernelError: FORWARD drops and there is no chain of the operator's to ask, or iptables is missing.
        """
        changed, fault = False, ""
        for backend in self._backends():
            table = await backend.table()
            if table.asks_operator:
                changed |= await _apply(backend, plan_forward(table, sandbox, bridge))
            else:
                fault = _closed(backend, table) or fault
        if fault:
            raise KernelError(fault)
        return changed

    async def lets_pass(self, sandbox: str, bridge: str) -> bool:
        """Is our rule there, or needed nowhere? KernelError as of `allow`. Changes nothing."""
        right, fault = True, ""
        for backend in self._backends():
            table = await backend.table()
            if table.asks_operator:
                right &= not plan_forward(table, sandbox, bridge)
            else:
                fault = _closed(backend, table) or fault
        if fault:
            raise KernelError(fault)
        return right

    async def remove(self) -> int:
        """Take out our passage, in whichever back end; returns how many rules led to it."""
        return await _take_out(self._backends(), plan_without_forward)

    def _backends(self) -> list[Backend]:
        """KernelError: none."""
        if found := backends(Family.IPV4, self._namespace):
            return found
        raise KernelError(MISSING)


async def remove_all(namespace: str | None = None) -> int:
    """Take out every rule of ours in both families; how many there were. For `mesh cleanup`."""
    found = [one for family in Family for one in backends(family, namespace)]
    return await _take_out(found, plan_without_forward) + await _take_out(found, plan_without_input)


async def _take_out(found: list[Backend], plan: Callable[[FilterTable], str]) -> int:
    removed = 0
    for backend in found:
        script = plan(await backend.table())
        await _apply(backend, script)
        removed += removals(script)
    return removed


async def _apply(backend: Backend, script: str) -> bool:
    if script:
        await backend.restore(script)
    return bool(script)


def _closed(backend: Backend, table: FilterTable) -> str:
    """Why nothing passes here; "" when it does."""
    if table.forwards:
        return ""
    return f"{backend.program}: FORWARD drops and there is no chain {USER_CHAIN} to accept in"
