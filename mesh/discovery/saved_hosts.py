"""Whose hosts are, where the catalogue is a file: beside it on disk, so that a restart takes nobody's away.

Docker's managers keep it with the saved view (`saved`). A file says nothing of who was first, so of services
that are new at the same moment the one that stands first in it is.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import TypeAdapter

from mesh.catalog.model import Service
from mesh.discovery.host_records import Book
from mesh.errors import DiscoveryError
from mesh.net.atomic_file import replace_file
from mesh.peers.documents import valid

FILE = "hosts.json"
BYTES_MAX = 64 << 20  # of it: 100,000 hosts are about 10 MB

Held = dict[str, dict[str, float]]  # owner → key → since

_HELD: TypeAdapter[Held] = TypeAdapter(Held)

logger = logging.getLogger(__name__)


class SavedHosts:
    """`folder`/hosts.json, read once and written when it changes."""

    def __init__(self, folder: str, book: Book) -> None:
        self._path = Path(folder) / FILE
        self._book = book
        self._fault = ""
        book.begin({}, self._load())
        self._written = book.version

    def lay_over(self, services: Mapping[str, Service], now: float) -> Mapping[str, Service]:
        order = {id_: f"{number:09d}" for number, id_ in enumerate(services)}
        laid = self._book.lay_over(services, order, now)
        if self._book.version != self._written:
            self._written = self._book.version
            self._save()
        return laid

    def _load(self) -> Held:
        try:
            with self._path.open("rb") as file:
                return valid(_HELD, file.read(BYTES_MAX))
        except FileNotFoundError:
            return {}
        except (OSError, DiscoveryError) as error:
            logger.warning("%s is not used: %s", self._path, error)
            return {}

    def _save(self) -> None:
        record = self._book.record()
        held = {
            owner: {key: since for key, since in said.items() if since is not None}
            for owner, said in record.items()
        }
        fault = ""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._path, _HELD.dump_json(held))
        except OSError as error:
            fault = f"{self._path} cannot be written: {error.strerror}"
        if fault and fault != self._fault:  # once, not with every change
            logger.warning("%s", fault)
        self._fault = fault
