"""An authority on loopback that speaks ACME (RFC 8555) as it should, until a test puts something in between.

It proves nothing and checks no signature: what is tried with it is the client. `twist` gets each answer
before it is sent, and gives what is sent in its place.
"""

import asyncio
import datetime
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

DAY = datetime.timedelta(days=1)
TOKEN = "dG9rZW4tb2YtYS10ZXN0LXdpdGgtMzItYnl0ZXMhISE"
PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: Any = b""  # bytes as they are; else JSON
    fields: tuple[tuple[str, str], ...] = ()
    type: str = "application/json"

    def data(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        lines = [f"HTTP/1.1 {self.status} X", f"Content-Type: {self.type}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (*self.fields, ("Connection", "close"))]
        return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body

    def having(self, name: str, value: str) -> "Answer":
        return replace(self, fields=(*self.without(name).fields, (name, value)))

    def without(self, name: str) -> "Answer":
        return replace(self, fields=tuple(one for one in self.fields if one[0] != name))


# What is sent: an answer, bytes, or pieces of them that may have no end.
Sent = Answer | bytes | Iterator[bytes]
KINDS = ("directory", "nonce", "account", "order", "authorization", "challenge", "finalize", "certificate")


def as_it_should_be(_kind: str, answer: Answer) -> Sent:
    return answer


@dataclass
class AcmeServer:
    """`asked`: the kinds of what was asked, in order. One order at a time."""

    port: int = 0
    twist: Callable[[str, Answer], Sent] = as_it_should_be
    asked: list[str] = field(default_factory=list)
    sent: int = 0  # bytes of the last answer
    _name: str = ""
    _proven: bool = False
    _chain: bytes = b""

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def directory(self) -> str:
        return f"{self.root}/directory"

    def answer(self, kind: str, payload: Any) -> Answer:
        nonce = (("Replay-Nonce", "bm9uY2U"),)
        if kind == "directory":
            places = {
                "newNonce": "nonce",
                "newAccount": "account",
                "newOrder": "order",
            }
            return Answer(200, {name: f"{self.root}/{place}" for name, place in places.items()})
        if kind == "nonce":
            return Answer(200, b"", nonce)
        if kind == "account":
            return Answer(201, {"status": "valid"}, (*nonce, ("Location", f"{self.root}/account/1")))
        if kind == "order" and payload:
            self._name, self._proven = payload["identifiers"][0]["value"], False
            self._chain = b""
        if kind == "finalize":
            self._chain = issue(urlsafe_b64decode(payload["csr"] + "=="))
        if kind in ("order", "finalize"):
            return Answer(201, self._order(), (*nonce, ("Location", f"{self.root}/order")))
        if kind == "challenge":
            self._proven = True
            links = ("directory", "index"), ("authorization", "up")
            fields = [("Link", f'<{self.root}/{place}>;rel="{what}"') for place, what in links]
            return Answer(200, self._challenge(), (*nonce, *fields))
        if kind == "authorization":
            return Answer(200, self._authorization(), nonce)
        return Answer(200, self._chain, nonce, "application/pem-certificate-chain")

    def _order(self) -> dict[str, Any]:
        made = {
            "status": "valid" if self._chain else "ready" if self._proven else "pending",
            "identifiers": [{"type": "dns", "value": self._name}],
            "authorizations": [f"{self.root}/authorization"],
            "finalize": f"{self.root}/finalize",
        }
        return made | ({"certificate": f"{self.root}/certificate"} if self._chain else {})

    def _challenge(self) -> dict[str, Any]:
        status = "valid" if self._proven else "pending"
        return {"type": "http-01", "url": f"{self.root}/challenge", "token": TOKEN, "status": status}

    def _authorization(self) -> dict[str, Any]:
        return {
            "identifier": {"type": "dns", "value": self._name},
            "status": "valid" if self._proven else "pending",
            "challenges": [self._challenge()],
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            length = next(
                (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length")),
                0,
            )
            body = await reader.readexactly(length)
            kind = head.split()[1].strip("/").partition("/")[0]
            self.asked.append(kind)
            sent = self.twist(kind, self.answer(kind, payload_of(body)))
            await self._send(sent, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client has had enough
        finally:
            writer.close()

    async def _send(self, sent: Sent, writer: asyncio.StreamWriter) -> None:
        self.sent = 0
        pieces = (
            iter((sent.data() if isinstance(sent, Answer) else sent,))
            if not isinstance(sent, Iterator)
            else sent
        )
        for piece in pieces:
            writer.write(piece)
            self.sent += len(piece)
            await writer.drain()
            await asyncio.sleep(0)


def payload_of(body: bytes) -> Any:
    """Of a JWS (RFC 7515) as JSON; None: it has none."""
    if not body:
        return None
    payload = json.loads(body)["payload"]
    return json.loads(urlsafe_b64decode(payload + "==")) if payload else None


def issue(csr: bytes) -> bytes:
    """A certificate as it is asked for, PEM, of an authority that nobody knows."""
    wanted = x509.load_der_x509_csr(csr)
    now = datetime.datetime.now(datetime.UTC)
    names = wanted.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    made = x509.CertificateBuilder(
        issuer_name=x509.Name([]),
        subject_name=x509.Name([]),
        public_key=wanted.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - DAY,
        not_valid_after=now + 90 * DAY,
    ).add_extension(names, critical=True)
    return made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)


@asynccontextmanager
async def acme_server() -> AsyncIterator[AcmeServer]:
    made = AcmeServer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
