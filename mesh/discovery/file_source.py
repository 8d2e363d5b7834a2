"""The catalogue from a YAML file: the embedded default, for laptops, tests and benchmarks.

Strategy: once a second the file's identity (inode, size, mtime) is compared with what was read last; only a
difference is read. That sees both ways editors save: in place, and by renaming a new file over the old. A
file that became wrong changes nothing but `status()`: the last good catalogue stays in force.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from mesh.catalog import codec
from mesh.catalog.diff import difference
from mesh.catalog.snapshot import Change, Snapshot
from mesh.discovery.saved_hosts import SavedHosts
from mesh.discovery.source import SourceStatus
from mesh.errors import ConfigError, Problem

CHECK_EVERY = 1.0  # seconds between looks at the file: a stat costs microseconds, an edit should show at once
MAX_BYTES = 256 << 20  # of the file: 100,000 services with their tasks need about 60 MB

Identity = tuple[int, int, int]


class FileSource:
    """Reads `path` and publishes what differs from `current()`. Call `load()` first, then `run()`.

    `clock` gives seconds since the epoch, for `status().last_success`.
    """

    kind = "file"

    def __init__(
        self,
        path: str | os.PathLike[str],
        publish: Callable[[Change], Snapshot],
        current: Callable[[], Snapshot],
        *,
        clock: Callable[[], float] = time.time,
        hosts: SavedHosts | None = None,
    ) -> None:
        """`hosts`: whose hosts are, also after a restart."""
        self._hosts = hosts
        self._path = Path(path)
        self._publish = publish
        self._current = current
        self._clock = clock
        self._seen: Identity | None = None
        self._problems: tuple[Problem, ...] = ()
        self._last_success: float | None = None

    def load(self) -> Snapshot:
        """The file as it is now, published. Raises ConfigError with every problem, and publishes nothing."""
        self._seen = self._identity()
        return self._enter(self._parse())

    async def refresh(self) -> bool:
        """Read the file if it is not the one read last; True if so, and it was good and is published."""
        found = self._identity()
        if found == self._seen:
            return False
        try:
            catalogue = await asyncio.to_thread(self._parse)  # a large file takes seconds
        except ConfigError as error:
            self._seen, self._problems = found, error.problems
            return False
        if self._identity() != found:
            return False  # somebody is still writing; the next look finds it changed again
        self._seen = found
        self._enter(catalogue)
        return True

    async def run(self) -> None:
        """Follow the file until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY)
            await self.refresh()

    def status(self) -> SourceStatus:
        return SourceStatus(
            kind=self.kind,
            connected=not self._problems,
            last_success=self._last_success,
            last_error=str(self._problems[0]) if self._problems else "",
            problems=self._problems,
        )

    def _parse(self) -> codec.Catalogue:
        return codec.parse_text(self._read(), str(self._path))

    def _enter(self, catalogue: codec.Catalogue) -> Snapshot:
        services = catalogue.services
        if self._hosts is not None:
            services = self._hosts.lay_over(services, self._clock())
        snapshot = self._publish(
            difference(
                self._current(),
                nodes=catalogue.nodes,
                networks=catalogue.networks,
                services=services,
                containers=catalogue.containers,
                askers=catalogue.askers,
            )
        )
        self._last_success = self._clock()
        self._problems = ()
        return snapshot

    def _identity(self) -> Identity | None:
        """None while there is no file: an editor may be between unlink and rename."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> str:
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                raise self._unreadable(f"is larger than {MAX_BYTES} bytes")
            return content.decode("utf-8")
        except OSError as error:
            raise self._unreadable(f"cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise self._unreadable(f"is not UTF-8 text (byte {error.start})") from error

    def _unreadable(self, message: str) -> ConfigError:
        return ConfigError([Problem(str(self._path), "", message)])
