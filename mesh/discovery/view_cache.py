"""The last cluster view on disk, so that a node that starts without any manager still knows names and tasks.

Written beside and renamed, so that a power failure leaves the old or the new one; at most every few seconds,
since it is as large as the cluster and matters only after a loss.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

from mesh.catalog.cluster_view import ClusterView
from mesh.errors import DiscoveryError
from mesh.net.atomic_file import replace_file
from mesh.peers.feed.codec import decode, encode_view

FILE = "cluster.json"
EVERY_SECONDS = 3.0

logger = logging.getLogger(__name__)


class SavedView:
    """`state_dir`/cluster.json."""

    def __init__(self, folder: str, view: Callable[[], ClusterView]) -> None:
        self._path = Path(folder) / FILE
        self._view = view
        self._dirty = asyncio.Event()
        self._fault = ""
        self._writing = threading.Lock()  # the last write may come while a thread still writes
        self._taken = 0  # views so far
        self._written = 0  # the newest of them on disk

    def load(self) -> ClusterView | None:
        """What was saved; None, with a word in the log, when there is nothing usable."""
        try:
            found = decode(self._path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, DiscoveryError) as error:
            logger.warning("%s is not used: %s", self._path, error)
            return None
        return found if isinstance(found, ClusterView) else None

    def changed(self) -> None:
        self._dirty.set()

    async def run(self) -> None:
        """Save what changed until cancelled, and then once more."""
        try:
            while True:
                await self._dirty.wait()
                await self._save()
                await asyncio.sleep(EVERY_SECONDS)
        finally:
            if self._dirty.is_set() or self._written < self._taken:
                self._write(*self._take())

    async def _save(self) -> None:
        self._dirty.clear()
        number, view = self._take()
        await asyncio.to_thread(self._write, number, view)

    def _take(self) -> tuple[int, ClusterView]:
        now = self._view()
        self._taken += 1
        return self._taken, ClusterView(
            dict(now.nodes), dict(now.networks), dict(now.services), dict(now.neighbours)
        )

    def _write(self, number: int, view: ClusterView) -> None:
        """On a thread, or at the end; never an older view over a newer one."""
        fault = ""
        try:
            with self._writing:
                if number > self._written:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    replace_file(self._path, encode_view(view))
                    self._written = number
        except OSError as error:
            fault = f"{self._path} cannot be written: {error.strerror}"
        if fault and fault != self._fault:  # once, not every few seconds
            logger.warning("%s", fault)
        self._fault = fault
