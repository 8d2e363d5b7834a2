"""The local engine's JSON, of 20.10 and of newer ones."""

import pytest

from mesh.catalog.model import Attachment
from mesh.discovery.engine_json import SeenService, SeenTask, container, gateway_place, network_view
from tests.support import docker_fixtures as docker
from tests.support.docker_fixtures import BACKEND, GWBRIDGE, INGRESS


def test_a_task_of_20_10() -> None:
    place = gateway_place(
        docker.network(
            GWBRIDGE,
            "docker_gwbridge",
            "172.18.0.0/16",
            "local",
            containers={
                "webtask2-container": {"Name": "gateway_3c5ca445f517", "IPv4Address": "172.18.0.4/16"},
                "ingress-sbox": {"Name": "gateway_ingress-sbox", "IPv4Address": "172.18.0.2/16"},
            },
        )
    )
    found = container(docker.WEB_CONTAINER, place)
    assert (found.name, found.service, found.task) == ("shop_web.2.webtask2", "webservice", "webtask2")
    assert found.namespace == "/var/run/docker/netns/webtask2-con"
    assert found.attachments == (  # the short id among the aliases is not one
        Attachment(BACKEND, "10.0.8.12"),
        Attachment(INGRESS, "10.0.0.42"),
        Attachment(GWBRIDGE, "172.18.0.4", gateway=True),
    )


def test_a_plain_container_of_26() -> None:
    json = docker.container(
        "c" * 64,
        "db",
        hostname="primary",
        dns=["9.9.9.9"],
        networks={
            "dev": docker.endpoint(
                "devnet",
                "172.20.0.2",
                Gateway="172.20.0.1",
                Aliases=["database"],
                DNSNames=["db", "database", "cccccccccccc", "primary"],
                GlobalIPv6Address="fd00::2",
                GwPriority=10,
            )
        },
    )
    found = container(json)
    assert found.attachments == (
        Attachment("devnet", "172.20.0.2", ("database", "primary"), "fd00::2", gateway=True, priority=10),
    )
    assert (found.hostname, found.dns, found.service, found.task) == ("primary", ("9.9.9.9",), "", "")


def test_legacy_links_belong_to_an_endpoint() -> None:
    links = ["mysql:db", "cache", "/solr:/web/search", "newer:db"]
    json = docker.container(
        "c" * 64, "web", networks={"dev": docker.endpoint("n", "172.20.0.3", Links=links)}
    )
    assert container(json).attachments[0].links == (("db", "newer"), ("cache", "cache"), ("search", "solr"))


def test_host_and_none_have_no_namespace_of_their_own() -> None:
    for mode in ("host", "none"):
        assert container(docker.container("c", "agent", mode=mode)).namespace == ""
    swarm = docker.container("c", "agent", networks={"host": docker.endpoint("h", "")})
    found = container(swarm)
    assert (found.namespace, found.attachments) == ("", ())


def test_one_that_has_ended() -> None:
    assert not container(docker.container("c", "job", running=False, sandbox="")).running


def test_gossip() -> None:
    json = docker.gossip(
        docker.NETWORKS[1],
        {
            "": docker.gossip_service("<nil>", {"plain": ("10.0.8.99", "192.168.2.62")}),
            "shop_web": docker.gossip_service(
                "10.0.8.2", {"shop_web.2.webtask2": ("10.0.8.12", "192.168.2.61")}
            ),
            "db": docker.gossip_service("<nil>", {}),
        },
    )
    view = network_view(json)
    assert view.network == BACKEND
    assert view.services == {
        "shop_web": SeenService("10.0.8.2", (SeenTask("shop_web.2.webtask2", "10.0.8.12", "192.168.2.61"),)),
        "db": SeenService("", ()),
    }


@pytest.mark.parametrize(
    ("options", "ndots"), [([], False), (["ndots:2", "rotate"], True), (["ndots:x"], False), (None, False)]
)
def test_a_container_may_be_told_when_to_search(options: list[str] | None, ndots: bool) -> None:
    json = docker.container("c1", "/box", networks={})
    json["HostConfig"] = {**json.get("HostConfig", {}), "DnsOptions": options}
    assert container(json).ndots is ndots
