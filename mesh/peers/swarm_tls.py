"""Mutual TLS with the Swarm's own certificates: no secret of ours to distribute, rotated by Swarm itself.

Every node has a certificate of the cluster's CA: O=<cluster>, OU=<role>, CN=<node id>, and among its names
`swarm-manager` only if it is a manager. So ordinary hostname checking against `swarm-manager` proves that the
server is one. A client may be any node of the cluster: the CA proves it, and O, since clusters can be given
the same CA.

Swarm adds headers of its own to the key's PEM (`kek-version`, `raft-dek`), which OpenSSL refuses; they are
taken out in memory. A manager of an autolocked Swarm keeps its key encrypted; then there is no feed.
"""

import hashlib
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.errors import DiscoveryError

CA, CERTIFICATE, KEY = "swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key"
MANAGER_NAME, WORKER_NAME = "swarm-manager", "swarm-worker"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate of Swarm's CA says its holder is; "" for what it does not say."""

    cluster: str
    role: str  # swarm-manager | swarm-worker
    node: str  # id


def identity_of(certificate: Mapping[str, Any] | None) -> Identity:
    """From a verified peer's certificate, as `getpeercert()` has it."""
    names = dict(pair for part in (certificate or {}).get("subject", ()) for pair in part)
    return Identity(
        names.get("organizationName", ""),
        names.get("organizationalUnitName", ""),
        names.get("commonName", ""),
    )


class SwarmCertificates:
    """The files in Swarm's certificates folder. All methods raise DiscoveryError when they cannot be used."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def fingerprint(self) -> str:
        """Changes when any of the files does."""
        return hashlib.sha256(b"\0".join(self._read(name) for name in (CA, CERTIFICATE, KEY))).hexdigest()

    def expires(self) -> float:
        """When our own does; seconds since the epoch."""
        return ssl.cert_time_to_seconds(str((self._own() or {}).get("notAfter", "")))

    def identity(self) -> Identity:
        """Our own, as a peer would see it: expired or foreign to the CA, it is refused here already."""
        return identity_of(self._own())

    def _own(self) -> Mapping[str, Any] | None:
        server, client = self._context(ssl.PROTOCOL_TLS_SERVER), self._context(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        try:
            return _shown(server, client)
        except ssl.SSLError as error:
            raise self._unusable(error) from error

    def server_context(self, refused: Callable[[str], None]) -> ssl.SSLContext:
        """For managers: clients must show a certificate of this cluster; `refused` is told why not."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.sslobject_class = _counting(refused)
        return context

    def client_context(self, node: str = "", cluster: str = "") -> ssl.SSLContext:
        """For workers: connect with server_hostname=MANAGER_NAME. Where they are given, the server has to be
        this node (its id), of this cluster: a manager that was demoted keeps its certificate for months."""
        context = self._context(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = True
        if node or cluster:
            context.sslobject_class = _expecting(node, cluster)
        return context

    def _context(self, protocol: int) -> ssl.SSLContext:
        # Not create_default_context: its strict X.509 mode (Python 3.13) refuses Swarm's CA, which lacks an
        # authority key identifier.
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cadata=self._read(CA).decode("ascii"))
            _load_key(context, self._read(CERTIFICATE) + _plain_key(self._read(KEY)))
        except (ssl.SSLError, ValueError, OSError) as error:
            raise self._unusable(error) from error
        return context

    def _unusable(self, error: Exception) -> DiscoveryError:
        why = getattr(error, "verify_message", "") or str(error)
        return DiscoveryError(f"{self._folder}: the node's certificate cannot be used: {why}")

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise DiscoveryError(
                f"{self._folder / name}: {error.strerror}; bind Swarm's certificates folder into the sidecar"
            ) from error


def _plain_key(pem: bytes) -> bytes:
    """The key without Swarm's PEM headers."""
    if b"ENCRYPTED" in pem:
        raise ValueError("the Swarm is autolocked: the key is encrypted, and the feed needs it in the clear")
    return b"\n".join(line for line in pem.splitlines() if b":" not in line and line.strip()) + b"\n"


def _load_key(context: ssl.SSLContext, pem: bytes) -> None:
    """Certificate and key from memory: OpenSSL wants a path, and the key must not touch a disk."""
    descriptor = os.memfd_create("mesh-node-certificate")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _shown(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, Any] | None:
    """What the server shows the client: a handshake in memory. The standard library reads no other way."""
    forth, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(back, forth)
    shown = server.wrap_bio(forth, back, server_side=True)
    for side in (asking, shown, asking):  # hello; certificate; verified
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return asking.getpeercert()


def _expecting(node: str, cluster: str) -> type[ssl.SSLObject]:
    """Whose handshake fails with anybody else. "": anybody."""

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            peer = identity_of(self.getpeercert())
            if node and peer.node != node:
                raise ssl.SSLCertVerificationError(
                    "its certificate is not that of the manager at this address"
                )
            if cluster and peer.cluster != cluster:
                raise ssl.SSLCertVerificationError("its certificate is of another cluster")

    return Handshake


def _counting(refused: Callable[[str], None]) -> type[ssl.SSLObject]:
    """Event loops keep failed handshakes to themselves; the TLS object itself can tell."""

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                refused(error.reason or type(error).__name__)
                raise

    return Handshake
