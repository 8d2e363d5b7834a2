"""A certificate authority like Swarm's, with nodes' folders as they are under /var/lib/docker/swarm.

Certificates are as real nodes have them: O=<cluster>, OU=swarm-manager|swarm-worker, CN=<node id>, both
extended key usages, DNS names of the role, of the node and (managers) swarm-ca; the key's PEM carries Swarm's
own headers. The CA has no authority key identifier, which strict X.509 checks would miss.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC)
HEADERS = b"kek-version: 0\nraft-dek: EiDB/1PM4W6vJ3npLfw7rtDsfyjENlLrGKDhr1aps1E/kA==\n\n"


class SwarmCA:
    """One cluster's authority. Two clusters may be given the same one: `cluster` is per node then."""

    def __init__(self, cluster: str = "clusteridclusteridcluste") -> None:
        self.cluster = cluster
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "swarm-ca")])
        key = self._key.public_key()
        self._certificate = (
            _builder(self._name, self._name, key, NOW + 7300 * DAY)
            .add_extension(_usage(ca=True), critical=True)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def node(
        self,
        folder: Path,
        node_id: str,
        role: str = "swarm-worker",
        *,
        cluster: str = "",
        expired: bool = False,
        passphrase: bytes = b"",
    ) -> str:
        """Write (or rotate) the certificates of a node; returns the folder's path."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster or self.cluster),
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, node_id),
            ]
        )
        names = [role, node_id, *(["swarm-ca"] if role == "swarm-manager" else [])]
        certificate = (
            _builder(subject, self._name, key.public_key(), NOW - DAY if expired else NOW + 90 * DAY)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "swarm-root-ca.crt").write_bytes(self._certificate.public_bytes(Encoding.PEM))
        (folder / "swarm-node.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        (folder / "swarm-node.key").write_bytes(_key_pem(key, passphrase))
        return str(folder)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, until: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - 2 * DAY)
        .not_valid_after(until)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=not ca,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes) -> bytes:
    how: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    first, rest = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).split(b"\n", 1)
    return first + b"\n" + HEADERS + rest
