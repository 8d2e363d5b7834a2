"""Certificates that an authority has issued, as the HTTP side of any process sees them: a folder that is
looked into, and the answer to whoever asks whether a name is ours."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from mesh.errors import Problem
from mesh.http.routing.router import RequestRouter
from mesh.http.tls.certificate_store import TlsCertificates

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")  # RFC 8555, section 8.1: base64url


class Issued(Protocol):
    """`changed` is set when there may be other certificates in the folder."""

    changed: asyncio.Event

    @property
    def folder(self) -> Path: ...
    @property
    def thumbprint(self) -> str:
        """Of the account's key; "": there is none."""
        ...

    def start(self, site: RequestRouter, certificates: TlsCertificates) -> None: ...
    def problems(self) -> Iterator[Problem]: ...
    def orders(self) -> dict[tuple[str, ...], int]:
        """(result) → how many were ordered here."""
        ...


class IssuedElsewhere:
    """In a process that serves: the sidecar sees to the rest."""

    def __init__(self) -> None:
        self.thumbprint = ""  # as the sidecar says

    def start(self, site: RequestRouter) -> None:
        def answer(host: str, token: str) -> str | None:
            return proof(site, host, token, self.thumbprint)

        site.proof = answer


def proof(site: RequestRouter, host: str, token: str, thumbprint: str) -> str | None:
    """Only for names that we order: applications may have authorities of their own."""
    if not thumbprint or not site.acme_domains.has(host) or not _TOKEN.fullmatch(token):
        return None
    return f"{token}.{thumbprint}"
