"""Swarm's certificates as they lie on a node's disk."""

import ssl
from pathlib import Path

import pytest

from mesh.errors import DiscoveryError
from mesh.peers.swarm_tls import Identity, SwarmCertificates, identity_of
from tests.support.docker_fixtures_pki import SwarmCA

CA = SwarmCA("cluster1")


def ignore(_reason: str) -> None: ...


def test_our_own_identity(tmp_path: Path) -> None:
    folder = CA.node(tmp_path, "node1", "swarm-manager")
    assert SwarmCertificates(folder).identity() == Identity("cluster1", "swarm-manager", "node1")


def test_nobody() -> None:
    assert identity_of(None) == Identity("", "", "")


def test_the_key_with_swarms_headers_is_read(tmp_path: Path) -> None:
    certificates = SwarmCertificates(CA.node(tmp_path, "node1"))
    assert certificates.server_context(ignore).verify_mode is ssl.CERT_REQUIRED
    assert certificates.client_context().check_hostname


def test_an_autolocked_swarm_has_no_feed(tmp_path: Path) -> None:
    certificates = SwarmCertificates(CA.node(tmp_path, "node1", passphrase=b"secret"))
    with pytest.raises(DiscoveryError, match="autolocked"):
        certificates.client_context()


def test_an_expired_certificate_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DiscoveryError, match="expired"):
        SwarmCertificates(CA.node(tmp_path, "node1", expired=True)).identity()


def test_a_certificate_of_another_ca_is_of_no_use(tmp_path: Path) -> None:
    ours = (tmp_path / "swarm-root-ca.crt", SwarmCA().node(tmp_path, "node1"))[0]
    CA.node(tmp_path / "other", "node1")
    ours.write_bytes((tmp_path / "other" / "swarm-root-ca.crt").read_bytes())
    with pytest.raises(DiscoveryError, match="cannot be used"):
        SwarmCertificates(str(tmp_path)).identity()


@pytest.mark.parametrize("name", ["swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key"])
def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path, name: str) -> None:
    folder = CA.node(tmp_path, "node1")
    (tmp_path / name).unlink()
    with pytest.raises(DiscoveryError, match=rf"{name}.*bind Swarm's certificates folder"):
        SwarmCertificates(folder).fingerprint()


def test_rubbish_is_an_error_of_ours_to_tell(tmp_path: Path) -> None:
    folder = CA.node(tmp_path, "node1")
    (tmp_path / "swarm-node.crt").write_bytes(b"\xff\x00 no certificate")
    with pytest.raises(DiscoveryError, match="cannot be used"):
        SwarmCertificates(folder).client_context()


def test_the_fingerprint_follows_rotation(tmp_path: Path) -> None:
    certificates = SwarmCertificates(CA.node(tmp_path, "node1"))
    before = certificates.fingerprint()
    assert certificates.fingerprint() == before
    CA.node(tmp_path, "node1")
    assert certificates.fingerprint() != before
