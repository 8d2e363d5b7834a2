"""Our table in one namespace, held open: loading and changing it, its heartbeat, its end.

Everything that may block (loading, batches, closing a netlink socket) runs on the namespace worker's thread;
only the beat, microseconds long, runs on the caller's.

One descriptor is all that it holds: a netlink socket, which belongs to its namespace and keeps it.
"""

import os

from mesh.kernel.heartbeat import Heartbeat
from mesh.kernel.netfilter import nft
from mesh.kernel.netfilter.nft_batch import Batches
from mesh.kernel.netfilter.transaction import Transaction, as_text
from mesh.kernel.rulesets import DELETE, TABLE
from mesh.net.netns import NamespaceWorker


class Table:
    """An open handle on one namespace's nftables; it keeps the namespace alive until closed."""

    def __init__(self, worker: NamespaceWorker, batches: Batches) -> None:
        self._worker = worker
        self._batches = batches
        self._heartbeat = Heartbeat(batches)

    async def load(self, text: str) -> None:
        """One transaction. KernelError: nothing of it took effect."""
        await self._worker.run(None, lambda: self._run(text))

    async def change(self, transaction: Transaction) -> None:
        """The same for a table that is loaded, without a look at all that it has."""

        def change() -> None:
            if not self._batches.change(transaction):
                self._run(as_text(transaction))

        await self._worker.run(None, change)

    async def ask(self, *texts: str) -> str:
        """The output of each `list …`; nothing of ours changes the table between them. KernelError: it is not
        there."""
        return await self._worker.run(None, lambda: self._run("".join(texts)))

    def beat(self) -> None:
        """Re-arm the redirects for another rules.ALIVE_SECONDS. KernelError: our table is no longer there."""
        self._heartbeat.beat()

    async def close(self) -> None:
        """Let go of the namespace; the table itself stays as it is."""

        await self._worker.run(None, self._batches.close)

    def _run(self, text: str) -> str:
        namespace = self._batches.namespace()
        try:
            return nft.run(text, namespace)
        finally:
            os.close(namespace)


class Tables:
    """Opens tables by namespace path; None is the host's."""

    def __init__(self, worker: NamespaceWorker) -> None:
        self._worker = worker

    async def open(self, path: str | None) -> Table:
        """NamespaceGone when there is no such namespace any more."""

        return Table(self._worker, await self._worker.run(path, Batches))

    async def clear(self, path: str | None) -> bool:
        """Remove our table from a namespace; True if there was one."""
        return await self._worker.run(path, clear)


def present() -> bool:
    """Is there a table of ours in the calling thread's namespace? Blocking."""
    return f"table ip {TABLE}\n" in nft.run("list tables ip\n")


def clear() -> bool:
    """Remove our table from the calling thread's namespace; True if there was one. Blocking."""
    if not present():
        return False
    nft.run(DELETE)
    return True
