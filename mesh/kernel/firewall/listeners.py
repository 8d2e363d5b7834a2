"""Having the operator's DOCKER-USER asked for everything that the sidecar listens on for clients.

Two halves that belong together: a table of ours marks the packets (`mesh.kernel.firewall.listener_rules`), a
rule in INPUT has them asked (`mesh.kernel.firewall.filter_table`). Whoever opens a listener covers it first,
so no packet is let in unasked. What cannot be arranged is closed, not open: until it can, packets to these
ports are dropped.
"""

import asyncio
import logging
from collections.abc import Callable, Collection

from mesh.errors import KernelError
from mesh.kernel.firewall.filter_table import Family, plan_input, plan_without_input
from mesh.kernel.firewall.iptables import Backend, backends
from mesh.kernel.firewall.listener_rules import (
    DELETE_LISTENERS,
    DROPPED,
    LET_IN,
    LIST_LISTENERS,
    MARK_LEGACY,
    MARK_NFT,
    Listener,
    PacketVerdict,
    listener_rules,
    listener_update,
)
from mesh.kernel.netfilter.interfaces import TableHandle, TableOpener

logger = logging.getLogger(__name__)

MISSING = "the node has rules of iptables, but no iptables program is installed to read them"


class ListenerFirewall:
    """Of the host's namespace. `private`: TCP ports on loopback, for this node alone."""

    def __init__(
        self,
        tables: TableOpener,
        *,
        namespace: str | None = None,
        private: Collection[int] = (),
    ) -> None:
        self._tables = tables
        self._namespace = namespace
        self._private = frozenset(private)
        self.on_ipv6: Callable[[], None] = lambda: None  # called when an IPv6 DOCKER-USER has come or gone
        self._covered: dict[str, frozenset[Listener]] = {}
        self._verdicts: dict[Family, PacketVerdict] = dict.fromkeys(Family, LET_IN)
        self._table: TableHandle | None = None
        self._loaded: frozenset[Listener] | None = None  # None: what the kernel holds is unknown
        self._closed = False
        self._faults: dict[Family, str] = {}
        self._busy = asyncio.Lock()

    @property
    def status(self) -> str:
        """ "" when every listener is asked for as it should be; else why clients are kept out."""
        return "; ".join(self._faults.values())

    def asks_operator(self, family: Family) -> bool:
        """Has the host a DOCKER-USER of this family, as last seen?"""
        return bool(self._verdicts[family].mark)

    async def start(self) -> None:
        """Arrange all of it before the first listener is opened. KernelError: nftables refuses."""
        async with self._busy:
            await self._arrange()

    async def cover(self, owner: str, listeners: Collection[Listener]) -> None:
        """These are all that `owner` listens on, or is about to. When it returns, packets to them are asked
        of the operator's rules. KernelError: it could not be done."""
        async with self._busy:
            self._covered[owner] = frozenset(listeners)
            await self._load()

    async def look(self, *, verify: bool = False) -> None:
        """Rules of the host have changed. `verify`: our own table may be among them."""
        async with self._busy:
            try:
                if verify:
                    await self._verify()
                await self._arrange()
            except KernelError as error:
                logger.warning("listeners' firewall: %s", error)
                self._loaded = None

    async def close(self, *, leave: bool = False) -> None:
        """Take everything out; or leave it for the next sidecar, which listens on the same ports."""
        async with self._busy:
            table, self._table, self._loaded, self._closed = self._table, None, None, True
            if table is None:
                return
            try:
                if not leave:
                    await table.load(DELETE_LISTENERS)
                    for backend in self._backends():
                        await _apply(backend, plan_without_input(await backend.table()))
            except KernelError as error:
                logger.warning("listeners' firewall: something stays behind: %s", error)
            finally:
                await table.close()

    # --- work, one at a time ---

    async def _arrange(self) -> None:
        """First the rule in INPUT, then the marks that lead there."""
        if self._closed:
            return
        was_asked = self.asks_operator(Family.IPV6)
        verdicts = {family: await self._verdict(family) for family in Family}
        if verdicts != self._verdicts:
            self._verdicts, self._loaded = verdicts, None
        await self._load()
        if self.asks_operator(Family.IPV6) is not was_asked:
            self.on_ipv6()

    async def _verdict(self, family: Family) -> PacketVerdict:
        mark = 0
        try:
            found = backends(family, self._namespace)
            if not found:
                await self._must_be_without_rules(family)
            for backend in found:
                table = await backend.table()
                if table.asks_operator:
                    own = MARK_LEGACY if backend.legacy else MARK_NFT
                    await _apply(backend, plan_input(table, own))
                    mark |= own
        except KernelError as error:
            self._report(family, str(error))
            return DROPPED
        self._report(family, "")
        return PacketVerdict(mark)

    async def _must_be_without_rules(self, family: Family) -> None:
        listed = "ip" if family is Family.IPV4 else "ip6"
        if self._table is None:
            self._table = await self._tables.open(self._namespace)
        if f"table {listed} filter\n" in await self._table.ask(f"list tables {listed}\n"):
            raise KernelError(MISSING)

    def _report(self, family: Family, fault: str) -> None:
        if fault and self._faults.get(family) != fault:
            logger.error("clients are kept out of listeners over IPv%d: %s", family, fault)
        self._faults.pop(family, None)
        if fault:
            self._faults[family] = fault

    async def _load(self) -> None:
        """What differs, or all of it."""
        if self._closed:
            return
        if self._table is None:
            self._table = await self._tables.open(self._namespace)
        wanted = frozenset().union(*self._covered.values())
        if self._loaded is None:
            text = listener_rules(wanted, self._verdicts, self._private)
        else:
            text = listener_update(self._loaded, wanted)
        self._loaded, loaded = None, self._loaded
        if text or loaded is None:
            await self._table.load(text)
        self._loaded = wanted

    async def _verify(self) -> None:
        if self._table is None:
            return
        try:
            await self._table.ask(LIST_LISTENERS)
        except KernelError:
            self._loaded = None

    def _backends(self) -> list[Backend]:
        return [one for family in Family for one in backends(family, self._namespace)]


async def _apply(backend: Backend, script: str) -> None:
    if script:
        await backend.restore(script)
