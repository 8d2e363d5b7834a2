"""Certificates that an authority has issued, as the HTTP side of any process sees them: a folder that is
looked into, and the answer to whoever asks whether a name is ours."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mesh.acme.kept import THUMBPRINT
from mesh.errors import Problem
from mesh.http.site import Site
from mesh.http.tls import Certificates

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")  # RFC 8555, section 8.1: base64url


class Issued(Protocol):
    """`changed` is set when there may be other certificates in the folder."""

    changed: asyncio.Event

    @property
    def folder(self) -> Path: ...
    def start(self, site: Site, certificates: Certificates) -> None: ...
    def problems(self) -> Iterator[Problem]: ...
    def orders(self) -> dict[tuple[str, ...], int]:
        """(result) → how many were ordered here."""
        ...


class IssuedElsewhere:
    """In a worker: the sidecar sees to the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed = asyncio.Event()  # by looking

    def start(self, site: Site, certificates: Certificates) -> None:
        def answer(host: str, token: str) -> str | None:
            return proof(site, host, token, self._thumbprint())

        site.proof = answer

    def problems(self) -> Iterator[Problem]:
        return iter(())

    def orders(self) -> dict[tuple[str, ...], int]:
        return {}

    def _thumbprint(self) -> str:
        """Some bytes, and few ask."""
        try:
            return (self.folder / THUMBPRINT).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""


def proof(site: Site, host: str, token: str, thumbprint: str) -> str | None:
    """Only for names that we order: applications may have authorities of their own."""
    if not thumbprint or not site.certified.has(host) or not _TOKEN.fullmatch(token):
        return None
    return f"{token}.{thumbprint}"
