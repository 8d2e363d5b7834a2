"""TLS at entry points: certificates from files, chosen by name, taken anew; the same HTTP behind it."""

import asyncio
import datetime
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509

from mesh.http import limits
from mesh.http.downstream.listener import HttpListener
from mesh.http.downstream.published_port import HttpPort
from mesh.http.tls.certificate_store import TlsCertificates
from mesh.net.bound_listener import listen
from tests.http.conftest import LIMIT, Conversation, Stand
from tests.http.test_exchanges import echo_heads
from tests.support.certificates import NOW, pair
from tests.support.docker_fixtures_pki import SwarmCA

CA = SwarmCA()


def in_one_file(folder: Path, file: str, *names: str, days: int = 10) -> None:
    (folder / file).write_bytes(b"".join(pair(*names, days=days)))


@asynccontextmanager
async def front(stand: Stand, port: HttpPort, certificates: TlsCertificates) -> AsyncIterator[HttpListener]:
    made = HttpListener(stand.core, listen("127.0.0.1", 0), port, tls=certificates.context)
    try:
        yield made
    finally:
        await made.close()


async def connect(to: HttpListener, name: str, **settings: object) -> Conversation:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for setting, value in settings.items():
        setattr(context, setting, value)
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection(*to.address, ssl=context, server_hostname=name), LIMIT
    )
    return Conversation(reader, writer)


def presented(one: Conversation) -> list[str]:
    """The names in the certificate that the client got."""
    der = one.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    extension = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    return extension.value.get_values_for_type(x509.DNSName)


class TestCertificates:
    def test_a_certificate_is_found_by_name_and_wildcard(self, tmp_path: Path) -> None:
        in_one_file(tmp_path, "a.pem", "a.example", "b.example")
        in_one_file(tmp_path, "wild", "*.example")
        (tmp_path / "other-secret").write_text("password")
        found = TlsCertificates(str(tmp_path))
        found.refresh()
        assert [
            found.find(name).file for name in ("a.example", "B.Example.", "c.example", "x.c.example")
        ] == [  # type: ignore[union-attr]
            "a.pem",
            "a.pem",
            "wild",
            "a.pem",
        ]
        assert list(found.problems()) == []

    def test_a_key_may_be_in_a_file_beside_the_certificate(self, tmp_path: Path) -> None:
        certificate, key = pair("a.example")
        (tmp_path / "a.crt").write_bytes(certificate)
        (tmp_path / "a.key").write_bytes(key)
        found = TlsCertificates(str(tmp_path))
        found.refresh()
        assert [one.names for one in found.certificates()] == [("a.example",)]

    def test_of_two_for_a_name_the_longer_one_is_used(self, tmp_path: Path) -> None:
        in_one_file(tmp_path, "1", "a.example", days=20)
        in_one_file(tmp_path, "2", "a.example", days=10)
        found = TlsCertificates(str(tmp_path))
        found.refresh()
        certificate = found.find("a.example")
        assert certificate is not None
        assert certificate.file == "1"
        assert certificate.not_after == pytest.approx((NOW + datetime.timedelta(days=20)).timestamp(), abs=1)

    @pytest.mark.parametrize("broken", ["no key", "another's key", "cut"])
    def test_a_broken_file_is_a_problem_and_its_last_certificate_stays(
        self, tmp_path: Path, broken: str
    ) -> None:
        file = tmp_path / "a.pem"
        in_one_file(tmp_path, "a.pem", "a.example")
        found = TlsCertificates(str(tmp_path))
        found.refresh()
        before = found.find("a.example")
        certificate, key = pair("a.example")
        texts = {
            "no key": certificate,
            "another's key": certificate + pair("x")[1],
            "cut": certificate[:-60] + key,
        }
        file.write_bytes(texts[broken])
        os.utime(file, (1, 1))
        found.refresh()
        (problem,) = found.problems()
        assert problem.file == str(file)
        assert found.find("a.example") is before
        in_one_file(tmp_path, "a.pem", "a.example")
        found.refresh()
        assert list(found.problems()) == []
        assert found.find("a.example") is not before

    def test_an_authoritys_certificate_is_ignored(self, tmp_path: Path) -> None:
        """Others are known by it: `tls_ca`, `http.acme.ca`."""
        CA.node(tmp_path, "n1")
        in_one_file(tmp_path, "own.pem", "a.example")
        for left_over in ("swarm-node.crt", "swarm-node.key"):
            (tmp_path / left_over).unlink()
        certificates = TlsCertificates(str(tmp_path))
        certificates.refresh()
        assert [one.file for one in certificates.certificates()] == ["own.pem"]
        assert list(certificates.problems()) == []

    def test_certificates_come_from_both_folders(self, tmp_path: Path) -> None:
        """Of files and of what an authority has issued; the second comes to be when there is something."""
        issued = tmp_path / "issued"
        certificates = TlsCertificates(str(tmp_path / "files"), issued)
        certificates.refresh()
        assert not certificates.any
        assert list(certificates.problems()) == [], "nobody has to have files of their own"
        issued.mkdir()
        in_one_file(issued, "a.pem", "a.example")
        certificates.refresh()
        (first,) = certificates.certificates()
        assert not certificates.covers(["a.example"]), "ordered ones are renewed"
        (tmp_path / "files").mkdir()
        in_one_file(tmp_path / "files", "a.pem", "a.example", "*.b.example", days=30)
        certificates.refresh()
        assert len(certificates.certificates()) == 2
        assert certificates.find("a.example") != first
        assert certificates.covers(["a.example", "x.b.example"])
        assert not certificates.covers(["a.example", "b.example"])

    def test_a_missing_folder_is_a_problem(self, tmp_path: Path) -> None:
        found = TlsCertificates(str(tmp_path / "none"))
        found.refresh()
        (problem,) = found.problems()
        assert problem.message == "cannot be read: No such file or directory"


class TestConnections:
    async def test_requests_and_responses_go_through_tls(self, stand: Stand, tmp_path: Path) -> None:
        async def endpoint(one: Conversation) -> None:
            while head := await one.head():
                length = int(next(line for line in head.split("\r\n") if "Content-Length" in line)[16:])
                body = await one.read(length)
                said = b"https" if "X-Forwarded-Proto: https" in head else b"http"
                await one.say(
                    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b%b" % (length + len(said), said, body)
                )

        in_one_file(tmp_path, "a.pem", "a.example")
        certificates = TlsCertificates(str(tmp_path))
        certificates.refresh()
        task = await stand.endpoint(endpoint)
        async with front(stand, await stand.port(task.endpoint), certificates) as secured:
            client = await connect(secured, "a.example")
            assert presented(client) == ["a.example"]
            for size in (0, 5, 70_000, 3_000_000):
                body = bytes(i % 251 for i in range(size))
                sending = asyncio.create_task(
                    client.request(f"Content-Length: {size}", body=body, first="PUT / HTTP/1.1")
                )
                status, _, got = await client.response()
                await sending
                assert (status, got) == (200, b"https" + body)
            assert task.connections == 1

    async def test_pipelined_requests_in_one_record(self, stand: Stand, tmp_path: Path) -> None:
        in_one_file(tmp_path, "a.pem", "a.example")
        certificates = TlsCertificates(str(tmp_path))
        certificates.refresh()
        task = await stand.endpoint(echo_heads)
        async with front(stand, await stand.port(task.endpoint), certificates) as secured:
            client = await connect(secured, "a.example")
            await client.say("".join(f"GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n" for i in range(20)))
            for i in range(20):
                assert (await client.response())[2].startswith(b"GET /%d " % i)
            await client.request("Connection: close")
            await client.response()
            assert await client.rest() == b"", "an orderly end"

    async def test_new_connections_get_a_new_certificate(self, stand: Stand, tmp_path: Path) -> None:
        in_one_file(tmp_path, "a.pem", "a.example")
        certificates = TlsCertificates(str(tmp_path))
        certificates.refresh()
        task = await stand.endpoint(echo_heads)
        async with front(stand, await stand.port(task.endpoint), certificates) as secured:
            old = await connect(secured, "a.example")
            in_one_file(tmp_path, "b.pem", "b.example")
            certificates.refresh()
            new = await connect(secured, "b.example")
            assert (presented(old), presented(new)) == (["a.example"], ["b.example"])
            await old.request()
            assert (await old.response())[0] == 200

    async def test_a_client_without_tls_is_counted_and_closed(self, stand: Stand, tmp_path: Path) -> None:
        in_one_file(tmp_path, "a.pem", "a.example")
        certificates = TlsCertificates(str(tmp_path))
        certificates.refresh()
        task = await stand.endpoint(echo_heads)
        async with front(stand, await stand.port(task.endpoint), certificates) as secured:
            reader, writer = await asyncio.open_connection(*secured.address)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            got = b""
            with suppress(ConnectionResetError):
                got = await asyncio.wait_for(reader.read(), LIMIT)
            assert b"HTTP" not in got
            assert secured.refusals == {"tls": 1}
            with pytest.raises(ssl.SSLError):
                await connect(secured, "a.example", maximum_version=ssl.TLSVersion.TLSv1_1)
            assert secured.active == 0

    async def test_a_handshake_has_a_time_limit(
        self, stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "HANDSHAKE_SECONDS", 0.2)
        in_one_file(tmp_path, "a.pem", "a.example")
        certificates = TlsCertificates(str(tmp_path))
        certificates.refresh()
        async with front(stand, await stand.port(), certificates) as secured:
            reader, writer = await asyncio.open_connection(*secured.address)
            writer.write(b"\x16\x03\x01")
            assert await asyncio.wait_for(reader.read(), LIMIT) == b""
            assert secured.refusals == {"tls": 1}

    async def test_without_a_certificate_no_handshake_succeeds(self, stand: Stand, tmp_path: Path) -> None:
        certificates = TlsCertificates(str(tmp_path))
        certificates.refresh()
        async with front(stand, await stand.port(), certificates) as secured:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await connect(secured, "a.example")
