"""Where labels may not send us, in whatever form it is written."""

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from mesh.http.config.internal_targets import REFUSALS_MAX, InternalTargets, TargetRefused, why_internal
from mesh.http.upstream.external_client import ExternalClient
from mesh.net.own_addresses import leads_here
from mesh.net.tasks import Tasks

INTERNAL = {
    "127.0.0.1": "loopback",
    "127.255.0.1": "loopback",
    "::1": "loopback",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:7f00:1": "loopback",
    "::127.0.0.1": "loopback",
    "::ffff:0:127.0.0.1": "loopback",
    "64:ff9b::7f00:1": "loopback",
    "2002:7f00:1::": "loopback",
    "169.254.169.254": "link_local",
    "169.254.0.1": "link_local",
    "::ffff:169.254.169.254": "link_local",
    "64:ff9b::a9fe:a9fe": "link_local",
    "fe80::1": "link_local",
    "fe80::1%eth0": "link_local",
    "224.0.0.1": "multicast",
    "239.255.255.250": "multicast",
    "ff02::1": "multicast",
    "0.0.0.0": "unspecified",
    "0.1.2.3": "unspecified",
    "255.255.255.255": "unspecified",
    "::": "unspecified",
    "fd00:ec2::254": "metadata",
    "100.100.100.200": "metadata",
    "no address": "no_address",
}


@pytest.mark.parametrize(("address", "why"), INTERNAL.items())
def test_what_is_internal(address: str, why: str) -> None:
    assert why_internal(address) == why


@pytest.mark.parametrize("address", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1", "::ffff:192.0.2.1"])
def test_what_is_not(address: str) -> None:
    assert why_internal(address) == ""


def test_what_the_configuration_allows() -> None:
    allowed = (ip_network("127.0.0.0/8"), ip_network("fe80::/10"))
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fe80::1%eth0"):
        assert why_internal(address, allowed) == ""
    assert why_internal("169.254.169.254", allowed) == "link_local"


def test_what_is_refused_is_counted_and_remembered() -> None:
    targets = InternalTargets((ip_network("192.0.2.9"),), lambda address: address.startswith("192.0.2."))
    targets.check("198.51.100.1")
    targets.check("192.0.2.9")
    for address, why in (("192.0.2.1", "own"), ("::ffff:192.0.2.1", "own"), ("127.0.0.1", "loopback")):
        with pytest.raises(TargetRefused) as caught:
            targets.check(address)
        assert caught.value.reason == why
    assert targets.refused == {"own": 2, "loopback": 1}
    assert targets.refusal("auth.example") == ""
    assert "127.0.0.1 is loopback: refused (http.allow_internal_targets)" in targets.refusal("127.0.0.1")
    for number in range(REFUSALS_MAX + 5):
        targets.remember(f"h{number}", "why")
    assert (targets.refusal("h0"), targets.refusal("h9")) == ("", "why")
    targets.remember("h9", "")
    assert targets.refusal("h9") == ""


def test_what_leads_here() -> None:
    """The machine's own routing table says so."""
    assert leads_here("127.0.0.1")
    assert leads_here("::1")
    assert leads_here("127.77.0.1"), "without an interface that has it"
    assert not leads_here("192.0.2.200")


async def test_a_name_that_leads_elsewhere_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the name that is checked, and not once."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 302 X\r\nLocation: http://127.0.0.3/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    answers = ["127.0.0.2", "127.0.0.3", "127.0.0.2"]

    async def resolve(_self: Any, host: str, port: int = 0, family: Any = None) -> list[dict[str, Any]]:
        assert host == "auth.example"
        where = {"hostname": host, "host": answers.pop(0), "port": port, "family": 2, "proto": 6, "flags": 0}
        return [where]

    monkeypatch.setattr("aiohttp.resolver.ThreadedResolver.resolve", resolve)
    monkeypatch.setattr("aiohttp.connector.TCPConnector._use_dns_cache", False, raising=False)
    failures: list[object] = []
    tasks = Tasks(lambda *failure: failures.append(failure))
    targets = InternalTargets((ip_network("127.0.0.2"),), leads_here)
    outside = ExternalClient(tasks, internal=targets)
    statuses: list[int | None] = []
    for _ in range(3):
        done = asyncio.Event()

        def told(question: Any, done: asyncio.Event = done) -> None:
            statuses.append(question.head.status if question.head is not None else None)
            done.set()

        outside.ask(f"http://auth.example:{port}/", "GET", b"Host: auth.example\r\n", told)
        await asyncio.wait_for(done.wait(), 10)
        if outside._session is not None:
            outside._session.connector._cached_hosts.clear()  # type: ignore[union-attr]
        if statuses[-1] is None:
            assert "127.0.0.3 is loopback" in targets.refusal("auth.example")
    assert statuses == [302, None, 302], "nor is a redirect followed"
    assert targets.refusal("auth.example") == ""
    assert (targets.refused, connections) == ({"loopback": 1}, 2)
    await outside.close()
    await tasks.close()
    server.close()
    assert failures == []
