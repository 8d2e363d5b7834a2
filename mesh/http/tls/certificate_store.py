"""Certificates from folders, chosen by the name that a client asks for, taken anew when the files change.

A Docker secret is a file, so any PEM file with a certificate and its key will do, or a certificate NAME.crt
(.pem, .cert) beside NAME.key. Each becomes a context of its own; the names are those in the certificate. A
pair that cannot be used is named, and the one before it stays.
"""

import logging
import os
import ssl
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from mesh.errors import Problem

logger = logging.getLogger(__name__)

FILES_MAX = 1000  # in the folder
FILE_MAX = 256 * 1024  # bytes; a chain takes some thousands
ALPN = ("h2", "http/1.1")
# As Mozilla's "intermediate": forward secrecy, no CBC. TLS 1.3 has its own.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class Certificate:
    """One that can be used."""

    file: str
    names: tuple[str, ...]  # lower case; may begin with "*."
    not_after: float  # seconds since 1970
    context: ssl.SSLContext = field(compare=False)


class KeyPair(NamedTuple):
    """PEM: the chain, and the key; b"" if the chain's file has it."""

    chain: bytes
    key: bytes


@dataclass(slots=True)
class _SeenFiles:
    """A file as it was when it was last looked at."""

    stamp: tuple[tuple[int, int], ...]
    certificate: Certificate | None
    problem: Problem | None = None
    pair: "KeyPair | None" = None


class CertificateStore:
    """Certificates by name. `context` is for every listener: it hands over by name."""

    def __init__(self) -> None:
        self._exact: dict[str, Certificate] = {}
        self._wild: dict[str, Certificate] = {}  # by what follows "*."
        self._first: Certificate | None = None
        self.context = _new_context()
        self.context.sni_callback = self._by_name

    @property
    def any(self) -> bool:
        """Is there one to begin a handshake with?"""
        return self._first is not None

    def arrange(self, found: Sequence[Certificate]) -> None:
        """These from now on."""
        exact: dict[str, Certificate] = {}
        wild: dict[str, Certificate] = {}
        for one in sorted(found, key=lambda one: one.not_after):  # of two for a name the one that lasts
            for name in one.names:
                if name.startswith("*."):
                    wild[name[2:]] = one
                else:
                    exact[name] = one
        self._exact, self._wild = exact, wild
        self._first = found[0] if found else None
        logger.info("%d certificates for %s", len(found), ", ".join(sorted({*exact, *wild})) or "no name")

    def find(self, name: str) -> Certificate | None:
        """The one for this name, or the first of all (RFC 6066 section 3 lets the handshake go on)."""
        name = name.lower().rstrip(".")
        return self._exact.get(name) or self._wild.get(name.partition(".")[2]) or self._first

    def _by_name(
        self, sock: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext
    ) -> int | None:
        found = self.find(name or "")
        if found is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        sock.context = found.context
        return None


class GivenCertificates(CertificateStore):
    """Those that another process has read from files: file → chain and key, PEM."""

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, tuple[KeyPair, Certificate]] = {}

    def give(self, pairs: Mapping[str, KeyPair]) -> None:
        """These from now on; one that cannot be used is logged and left out."""
        given: dict[str, tuple[KeyPair, Certificate]] = {}
        for file, pair in pairs.items():
            known = self._given.get(file)
            if known is not None and known[0] == pair:
                given[file] = known
                continue
            try:
                given[file] = pair, _from_memory(file, pair)
            except (ValueError, ssl.SSLError, OSError) as error:
                logger.error("%s: %s", file, error)
        if given != self._given:
            self._given = given
            self.arrange([certificate for _, certificate in given.values()])


class TlsCertificates(CertificateStore):
    """Those of a folder: `look` again every few seconds."""

    def __init__(self, folder: str, issued: Path | None = None) -> None:
        """`issued`: where those are that an authority has issued to us; there may be none yet."""
        super().__init__()
        self._folder = Path(folder)
        self._issued = issued
        self._seen: dict[Path, _SeenFiles] = {}
        self._trouble: Problem | None = None  # of the folder

    @property
    def pairs(self) -> dict[str, "KeyPair"]:
        """All that can be used, by file, for another process."""
        return {
            str(file): one.pair
            for file, one in tuple(self._seen.items())
            if one.certificate is not None and one.pair is not None
        }

    def look(self) -> None:
        """Read what has changed. It blocks, for as long as reading some files takes."""
        seen: dict[Path, _SeenFiles] = {}
        try:
            self._look_into(self._folder, seen)
            self._trouble = None
        except OSError as error:
            # What was there is in use; and with an authority nobody has to have files of their own.
            seen |= {file: one for file, one in self._seen.items() if file.parent == self._folder}
            if self._issued is None or not isinstance(error, FileNotFoundError):
                self._trouble = Problem(str(self._folder), "", f"cannot be read: {error.strerror}")
        if self._issued is not None:
            try:
                self._look_into(self._issued, seen)
            except OSError as error:
                seen |= {file: one for file, one in self._seen.items() if file.parent == self._issued}
                if not isinstance(error, FileNotFoundError):
                    self._trouble = Problem(str(self._issued), "", f"cannot be read: {error.strerror}")
        changed = {name: one.stamp for name, one in seen.items()} != {
            name: one.stamp for name, one in self._seen.items()
        }
        self._seen = seen
        if changed:
            self.arrange(self.certificates())

    def _look_into(self, folder: Path, seen: dict[Path, _SeenFiles]) -> None:
        """Raises OSError."""
        files = sorted(one for one in folder.iterdir() if not one.name.startswith("."))[:FILES_MAX]
        keys = {one.stem: one for one in files if one.suffix == ".key"}
        for file in files:
            if file.suffix != ".key":
                found = self._looked(file, keys.get(file.stem))
                if found is not None:
                    seen[file] = found

    def given(self, names: Iterable[str]) -> bool:
        """Is each of these in a certificate of the folder that is not of the authority?"""
        return all(self._given(name) for name in names)

    def _given(self, name: str) -> bool:
        wild = "*." + name.partition(".")[2]
        return any(
            one.certificate is not None and (name in one.certificate.names or wild in one.certificate.names)
            for file, one in tuple(self._seen.items())
            if file.parent == self._folder
        )

    def problems(self) -> Iterator[Problem]:
        if self._trouble is not None:
            yield self._trouble
        for one in self._seen.values():
            if one.problem is not None:
                yield one.problem

    def certificates(self) -> list[Certificate]:
        return [one.certificate for one in self._seen.values() if one.certificate is not None]

    def _looked(self, file: Path, key: Path | None) -> _SeenFiles | None:
        """None: it is no certificate at all."""
        before = self._seen.get(file)
        try:
            stamp = tuple(_stamp(one) for one in (file, key) if one is not None)
            if before is not None and before.stamp == stamp:
                return before
            if file.stat().st_size > FILE_MAX:
                return None
            text = file.read_bytes()
        except OSError:
            return before  # it is being replaced: next time
        if b"-----BEGIN CERTIFICATE-----" not in text:
            return None
        if key is None and _of_authorities(text):
            return None  # others are known by it, as `tls_ca` and `http.acme.ca` have it
        try:
            pair = KeyPair(text, key.read_bytes() if key is not None else b"")
            return _SeenFiles(stamp, _read(file, text, key), pair=pair)
        except (ValueError, ssl.SSLError, OSError) as error:
            logger.error("%s: %s", file, error)
            problem = Problem(str(file), "", str(error))
            if before is None:
                return _SeenFiles(stamp, None, problem)
            return _SeenFiles(stamp, before.certificate, problem, before.pair)


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_mtime_ns, about.st_size


def _of_authorities(text: bytes) -> bool:
    """No key, and a first certificate that is an authority's."""
    if b"PRIVATE KEY-----" in text:
        return False
    try:
        first = x509.load_pem_x509_certificates(text)[0]
        return first.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound):
        return False


def _read(file: Path, text: bytes, key: Path | None) -> Certificate:
    """Raises ValueError, OSError, ssl.SSLError."""
    if key is None and b"PRIVATE KEY-----" not in text:
        raise ValueError(f"has no private key, and there is no {file.stem}.key beside it")
    leaf = x509.load_pem_x509_certificates(text)[0]
    context = _new_context()
    context.load_cert_chain(file, key)
    return Certificate(file.name, _names(leaf), leaf.not_valid_after_utc.timestamp(), context)


def _from_memory(file: str, pair: KeyPair) -> Certificate:
    """Raises ValueError, OSError, ssl.SSLError. OpenSSL's files are a memory's that has no name."""
    leaf = x509.load_pem_x509_certificates(pair.chain)[0]
    context = _new_context()
    with _in_memory(pair.chain) as chain, _in_memory(pair.key) as key:
        context.load_cert_chain(chain.name, key.name if pair.key else None)
    return Certificate(Path(file).name, _names(leaf), leaf.not_valid_after_utc.timestamp(), context)


@contextmanager
def _in_memory(content: bytes) -> Iterator[IO[bytes]]:
    """A file with this content, by a name that only this process can open."""
    if not hasattr(os, "memfd_create"):  # not Linux: the file is this user's alone
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file
        return
    descriptor = os.memfd_create("key")
    try:
        os.write(descriptor, content)
        with open(f"/proc/self/fd/{descriptor}", "rb") as file:
            yield file
    finally:
        os.close(descriptor)


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return tuple(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        common = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return tuple(str(one.value).lower() for one in common)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(list(ALPN))
    return context
