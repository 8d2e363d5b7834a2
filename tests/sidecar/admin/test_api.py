"""The HTTP surfaces over a fake state: what they say, and whom they refuse."""

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.admin import api
from sidecar.config import Address
from tests.sidecar.conftest import FakeState


async def get(
    address: Address, path: str, method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    url = f"http://{address}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers) as response:
        return response.status, await response.text(), dict(response.headers)


async def document(address: Address, path: str, status: int = 200) -> object:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as response:
        assert response.status == status
        return await response.json()


async def test_metrics_are_scraped(metrics_address: Address) -> None:
    status, body, headers = await get(metrics_address, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    names = {family.name for family in text_string_to_metric_families(body)}
    assert {"mesh_build_info", "mesh_endpoints"} <= names


async def test_healthz_answers_while_the_loop_does(metrics_address: Address) -> None:
    assert (await get(metrics_address, "/healthz"))[:2] == (200, "ok\n")


async def test_readyz_says_why_not(metrics_address: Address, state) -> None:
    assert await document(metrics_address, "/readyz") == {"ready": True, "reasons": []}
    state.reasons = ("the catalogue was never loaded",)
    told = await document(metrics_address, "/readyz", 503)
    assert told == {"ready": False, "reasons": ["the catalogue was never loaded"]}


async def test_the_open_surface_tells_nothing_else(metrics_address: Address) -> None:
    assert (await get(metrics_address, "/v1/status"))[0] == 404
    assert (await get(metrics_address, "/metrics", "POST"))[0] == 405


async def test_the_catalogue_is_told_in_the_shape_of_its_file(admin_address: Address) -> None:
    whole = await document(admin_address, "/v1/catalog")
    assert set(whole) == {"networks", "services", "nodes"}
    for part in ("networks", "services", "nodes"):
        assert await document(admin_address, f"/v1/{part}") == {part: whole[part]}
    told = await document(admin_address, "/v1/endpoints/web")
    assert told == {"services": {"web": whole["services"]["web"]}}


async def test_who_gets_nothing_from_this_node_is_told(state: FakeState, admin_address: Address) -> None:
    state.leaves_out = {"10.0.0.3:80": "left out for 9 s more (503)"}
    told = await document(admin_address, "/v1/endpoints/web")
    assert told["left_out"] == {"10.0.0.3:80": "left out for 9 s more (503)"}


async def test_an_unknown_service_is_named(admin_address: Address) -> None:
    assert await document(admin_address, "/v1/endpoints/nope", 404) == {"error": "no service 'nope'"}


async def test_status_is_the_report(admin_address: Address) -> None:
    told = await document(admin_address, "/v1/status")
    assert told["source"] == {"kind": "docker", "connected": True, "age": 0.25, "last_error": ""}
    assert told["ports"][1]["mode"] == "taken"


async def test_resolve_asks_for_the_asker(admin_address: Address) -> None:
    told = await document(admin_address, "/v1/resolve?name=web&type=a&from=web.1.a")
    assert (told["asker"], told["type"], told["answers"][0]["data"]) == ("web.1.a", "A", "10.0.0.2")
    refused = await document(admin_address, "/v1/resolve?name=web&from=stranger", 404)
    assert refused == {"error": "no container 'stranger' on this node"}
    await document(admin_address, "/v1/resolve", 400)
    await document(admin_address, f"/v1/resolve?name={'x' * 256}", 400)


async def test_the_page_shows_the_status_and_loads_nothing(admin_address: Address, state) -> None:
    status, body, headers = await get(admin_address, "/")
    assert status == 200
    assert "swarm00" in body
    assert "label mesh.capture=off" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http://" not in body
    assert "src=" not in body


async def test_a_page_that_was_tricked_into_asking_is_refused(admin_address: Address) -> None:
    assert (await get(admin_address, "/v1/status", Host="evil.example"))[0] == 403
    assert (await get(admin_address, "/v1/status", "POST"))[0] == 405
    assert (await get(admin_address, "/v1/status", "OPTIONS"))[0] == 405


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:9181", True),
        ("127.1.2.3", True),
        ("localhost:9181", True),
        ("[::1]:9181", True),
        ("", False),
        ("10.0.0.1:9181", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", True),
        ("[evil]", False),
    ],
)
def test_loopback_hosts(host: str, good: bool) -> None:
    assert api.is_loopback_host(host) is good


async def test_an_address_in_use_is_an_error_of_the_system(admin_address: Address, state) -> None:
    with pytest.raises(OSError):
        await api.SurfaceServer(api.admin_app(state), admin_address).start()


async def test_a_ports_way_is_explained(admin_address: Address) -> None:
    told = await document(admin_address, "/v1/explain/port/80?protocol=tcp")
    assert [hop["state"] for hop in told["ports"][0]["hops"]] == ["ok", "missing"]
    refused = await document(admin_address, "/v1/explain/port/81", 404)
    assert refused == {"error": "no service publishes port 81; published are: 80/tcp (web)"}
    await document(admin_address, "/v1/explain/port/80?protocol=udp", 404)
    assert await document(admin_address, "/v1/explain/port/503", 503) == {"error": "ask again"}
    for nonsense in ("0", "65536", "x", "9" * 5000, "%C2%B2"):
        await document(admin_address, f"/v1/explain/port/{nonsense}", 400)


async def test_a_services_way_is_explained(admin_address: Address) -> None:
    told = await document(admin_address, "/v1/explain/service/web")
    assert told["networks"][0]["containers"][0]["note"] == "it still leads to 10.0.0.9"
    refused = await document(admin_address, "/v1/explain/service/nope", 404)
    assert refused == {"error": "no service 'nope'; there are: web"}
