"""What nodes tell each other of certificates, as bytes and back. Pure.

Keys are in it, so it travels by mutual TLS of the Swarm only, and the account's key among managers only.
Who asks says what it has, and is told what is newer: of two certificates for the same names the one that
begins later is taken, of two accounts the one that was made later, whichever manager they come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mesh.errors import DiscoveryError

T = TypeVar("T")

TOLD_MAX = 16 << 20  # bytes; a certificate with its chain and key is some 6 KB
HAVE_MAX = 512 << 10  # bytes; a line of it is some 50


@dataclass(frozen=True, slots=True)
class AcmeAccount:
    """At the authority."""

    uri: str
    key: str  # JWK with the private part, as JSON
    made: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the asker has, of the authority with this directory: what another issued is of no use."""

    __pydantic_config__ = ConfigDict(extra="ignore")
    directory: str
    thumbprint: str = ""
    made: float = 0.0  # its account; 0: it has none
    certificates: Mapping[str, float] = field(default_factory=dict)  # file → when it begins
    serving: bool = True  # has entry points with TLS; sidecars of before this said it by asking


@dataclass(frozen=True, slots=True)
class CertificateUpdate:
    """What the asked one has that is newer."""

    __pydantic_config__ = ConfigDict(extra="ignore")
    directory: str
    thumbprint: str = ""  # of the account's key
    account: AcmeAccount | None = None
    certificates: tuple[str, ...] = ()  # PEM: key and chain


_HAVE: TypeAdapter[Inventory] = TypeAdapter(Inventory)
_TOLD: TypeAdapter[CertificateUpdate] = TypeAdapter(CertificateUpdate)
_ACCOUNT: TypeAdapter[AcmeAccount] = TypeAdapter(AcmeAccount)


def encode_have(have: Inventory) -> bytes:
    return _HAVE.dump_json(have)


def encode_told(told: CertificateUpdate) -> bytes:
    return _TOLD.dump_json(told)


def encode_account(account: AcmeAccount) -> bytes:
    return _ACCOUNT.dump_json(account)


def decode_have(data: bytes) -> Inventory:
    """Raises DiscoveryError, as the others do."""
    return _valid(_HAVE, data)


def decode_told(data: bytes) -> CertificateUpdate:
    return _valid(_TOLD, data)


def decode_account(data: bytes) -> AcmeAccount:
    return _valid(_ACCOUNT, data)


def _valid(expected: TypeAdapter[T], data: bytes) -> T:
    try:
        return expected.validate_json(data)
    except ValidationError as error:
        (first, *_) = error.errors(include_input=False)
        where = ".".join(map(str, first["loc"]))
        raise DiscoveryError(f"not a word about certificates: {where}: {first['msg']}") from error
