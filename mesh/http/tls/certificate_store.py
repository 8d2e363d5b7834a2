"""Certificates from folders, chosen by the server name of the client, read again when the files change.

A Docker secret is a file, so a PEM file can hold a certificate and its key; or the certificate is NAME.crt
(.pem, .cert) and the key NAME.key beside it. Each pair has an SSLContext of its own; its names are those in
the certificate. A pair that cannot be used is reported as a problem, and the last good one of that file
stays.
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

FILES_MAX = 1000  # of a folder; further ones are ignored
FILE_MAX = 256 * 1024  # bytes; a chain takes some thousands
ALPN = ("h2", "http/1.1")
# TLS 1.2: as Mozilla's "intermediate" (forward secrecy, no CBC). TLS 1.3 has ciphers of its own.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that can be used."""

    file: str
    names: tuple[str, ...]  # lower case; may begin with "*."
    not_after: float  # seconds since 1970
    context: ssl.SSLContext = field(compare=False)


class KeyPair(NamedTuple):
    """In PEM: the chain, and the key. The key is b"" if it is in the chain's file."""

    chain: bytes
    key: bytes


@dataclass(slots=True)
class _ReadFiles:
    """What the last refresh has read of a file."""

    stamp: tuple[tuple[int, int], ...]  # of the file, and of its key's: time of change, size
    certificate: Certificate | None
    problem: Problem | None = None
    pair: "KeyPair | None" = None


class CertificateStore:
    """Certificates by name. Listeners use `context`: in the handshake it switches to that of the
    certificate."""

    def __init__(self) -> None:
        self._exact: dict[str, Certificate] = {}
        self._wild: dict[str, Certificate] = {}  # by what follows "*."
        self._first: Certificate | None = None
        self.context = _new_context()
        self.context.sni_callback = self._by_name

    @property
    def any(self) -> bool:
        """There is at least one certificate."""
        return self._first is not None

    def set_certificates(self, found: Sequence[Certificate]) -> None:
        """Replaces all certificates."""
        exact: dict[str, Certificate] = {}
        wild: dict[str, Certificate] = {}
        for one in sorted(found, key=lambda one: one.not_after):  # of two for a name, the longer one stays
            for name in one.names:
                if name.startswith("*."):
                    wild[name[2:]] = one
                else:
                    exact[name] = one
        self._exact, self._wild = exact, wild
        self._first = found[0] if found else None
        logger.info("%d certificates for %s", len(found), ", ".join(sorted({*exact, *wild})) or "no name")

    def find(self, name: str) -> Certificate | None:
        """The certificate for this name, or the first one of all (RFC 6066 section 3 allows that)."""
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
    """Certificates that another process has read from files."""

    def __init__(self) -> None:
        super().__init__()
        self._given: dict[str, tuple[KeyPair, Certificate]] = {}

    def set_pairs(self, pairs: Mapping[str, KeyPair]) -> None:
        """Replaces all certificates. `pairs`: by file. One that cannot be used is logged and left out."""
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
            self.set_certificates([certificate for _, certificate in given.values()])


class TlsCertificates(CertificateStore):
    """Certificates of one or two folders. Call `refresh` every few seconds."""

    def __init__(self, folder: str, issued: Path | None = None) -> None:
        """`issued`: the folder of the certificates that an ACME authority has issued. It need not exist
        yet."""
        super().__init__()
        self._folder = Path(folder)
        self._issued = issued
        self._files: dict[Path, _ReadFiles] = {}
        self._folder_problem: Problem | None = None  # a folder cannot be read

    @property
    def pairs(self) -> dict[str, "KeyPair"]:
        """All pairs that can be used, by file, for `GivenCertificates` in another process."""
        return {
            str(file): one.pair
            for file, one in tuple(self._files.items())
            if one.certificate is not None and one.pair is not None
        }

    def refresh(self) -> None:
        """Reads the files that have changed. Blocks."""
        files: dict[Path, _ReadFiles] = {}
        try:
            self._scan(self._folder, files)
            self._folder_problem = None
        except OSError as error:
            # The last certificates stay in use. With an authority the folder need not exist.
            files |= self._files_of(self._folder)
            if self._issued is None or not isinstance(error, FileNotFoundError):
                self._folder_problem = Problem(str(self._folder), "", f"cannot be read: {error.strerror}")
        if self._issued is not None:
            try:
                self._scan(self._issued, files)
            except OSError as error:
                files |= self._files_of(self._issued)
                if not isinstance(error, FileNotFoundError):
                    self._folder_problem = Problem(str(self._issued), "", f"cannot be read: {error.strerror}")
        changed = {name: one.stamp for name, one in files.items()} != {
            name: one.stamp for name, one in self._files.items()
        }
        self._files = files
        if changed:
            self.set_certificates(self.certificates())

    def _files_of(self, folder: Path) -> dict[Path, _ReadFiles]:
        """What the last refresh has read of a folder."""
        return {file: one for file, one in self._files.items() if file.parent == folder}

    def _scan(self, folder: Path, files: dict[Path, _ReadFiles]) -> None:
        """Reads a folder's files into `files`. Raises OSError."""
        paths = sorted(one for one in folder.iterdir() if not one.name.startswith("."))[:FILES_MAX]
        keys = {one.stem: one for one in paths if one.suffix == ".key"}
        for file in paths:
            if file.suffix != ".key":
                found = self._read_files(file, keys.get(file.stem))
                if found is not None:
                    files[file] = found

    def covers(self, names: Iterable[str]) -> bool:
        """Each of these names is in a certificate of the operator's folder."""
        return all(self._covers(name) for name in names)

    def _covers(self, name: str) -> bool:
        wild = "*." + name.partition(".")[2]
        return any(
            one.certificate is not None and (name in one.certificate.names or wild in one.certificate.names)
            for file, one in tuple(self._files.items())
            if file.parent == self._folder
        )

    def problems(self) -> Iterator[Problem]:
        if self._folder_problem is not None:
            yield self._folder_problem
        for one in self._files.values():
            if one.problem is not None:
                yield one.problem

    def certificates(self) -> list[Certificate]:
        return [one.certificate for one in self._files.values() if one.certificate is not None]

    def _read_files(self, file: Path, key: Path | None) -> _ReadFiles | None:
        """A certificate's file, read again if it has changed. None: it is no certificate."""
        before = self._files.get(file)
        try:
            stamp = tuple(_stamp(one) for one in (file, key) if one is not None)
            if before is not None and before.stamp == stamp:
                return before
            if file.stat().st_size > FILE_MAX:
                return None
            text = file.read_bytes()
        except OSError:
            return before  # it is being replaced: the next refresh reads it
        if b"-----BEGIN CERTIFICATE-----" not in text:
            return None
        if key is None and _is_authority(text):
            return None  # an authority's certificate, as in `tls_ca` and `http.acme.ca`
        try:
            pair = KeyPair(text, key.read_bytes() if key is not None else b"")
            return _ReadFiles(stamp, _read(file, text, key), pair=pair)
        except (ValueError, ssl.SSLError, OSError) as error:
            logger.error("%s: %s", file, error)
            problem = Problem(str(file), "", str(error))
            if before is None:
                return _ReadFiles(stamp, None, problem)
            return _ReadFiles(stamp, before.certificate, problem, before.pair)


def _stamp(file: Path) -> tuple[int, int]:
    about = file.stat()
    return about.st_mtime_ns, about.st_size


def _is_authority(text: bytes) -> bool:
    """The file has no key, and its first certificate is an authority's."""
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
    """As `_read`. OpenSSL reads files only, so the pair is written to files in memory."""
    leaf = x509.load_pem_x509_certificates(pair.chain)[0]
    context = _new_context()
    with _in_memory(pair.chain) as chain, _in_memory(pair.key) as key:
        context.load_cert_chain(chain.name, key.name if pair.key else None)
    return Certificate(Path(file).name, _names(leaf), leaf.not_valid_after_utc.timestamp(), context)


@contextmanager
def _in_memory(content: bytes) -> Iterator[IO[bytes]]:
    """A file with this content, which only this process can open."""
    if not hasattr(os, "memfd_create"):  # not Linux: only this user can open the file
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
    """The DNS names of a certificate, in lower case; the common name where it has none."""
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
