"""Configuration: which layer wins, what is refused, and whom a problem blames."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.dns.name_policy import DOCKERS, OURS, SharedAlias
from mesh.errors import ConfigError
from sidecar import config
from sidecar.config import (
    Address,
    CaptureMode,
    Config,
    DiscoveryKind,
    LogFormat,
    LogLevel,
    OverIpv6,
    PortMode,
    UpstreamOrder,
)

CONTRACT = """
node: swarm00
discovery: {kind: docker}
dns: {listen: ["gateway:53"], upstreams: [], ttl: 5, cache: 10000}
capture: all
ingress: {listen: "0.0.0.0", mode: kernel}
metrics: {listen: "0.0.0.0:9180"}
admin: {socket: /run/mesh/admin.sock, listen: ""}
state_dir: /var/lib/mesh
"""


def built(
    text: str = "", *, file: str = "", flags: dict[str, str | None] | None = None, **environment: str
) -> Config:
    return config.build(text, file, environment, flags or {}, "host")


def problems(text: str = "", *, flags: dict[str, str | None] | None = None, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        built(text, file="mesh.yml", flags=flags, **environment)
    return [str(problem) for problem in caught.value.problems]


def test_the_documented_file_says_the_defaults() -> None:
    assert built(CONTRACT) == built(MESH_NODE="swarm00")


def test_defaults() -> None:
    defaults = built()
    assert defaults.node == "host"
    assert defaults.dns.listen == (Address("gateway", 53),)
    assert defaults.docker.socket == "/var/run/docker.sock"


def test_published_ports_over_ipv6_where_they_can_be_asked_or_as_it_is_said() -> None:
    assert built().ingress.ipv6 is OverIpv6.AUTO
    assert built("ingress: {ipv6: auto}").ingress.ipv6 is OverIpv6.AUTO
    assert built("ingress: {ipv6: false}").ingress.ipv6 is OverIpv6.FALSE
    assert built("ingress: {ipv6: true}").ingress.ipv6 is OverIpv6.TRUE
    assert built(MESH_INGRESS_IPV6="True").ingress.ipv6 is OverIpv6.TRUE
    (problem,) = problems("ingress: {ipv6: often}")
    assert "ingress.ipv6" in problem


def test_the_environment_wins_over_the_file_and_flags_over_both() -> None:
    text = "dns: {ttl: 1, cache: 2}\nmetrics: {listen: '127.0.0.1:1'}\ncapture: off"
    got = built(
        text,
        flags={"metrics": "127.0.0.1:3", "dns": "127.0.0.1:5353,[::1]:5353", "admin": None},
        MESH_DNS_TTL="7",
        MESH_METRICS_LISTEN="127.0.0.1:2",
    )
    assert (got.dns.ttl, got.dns.cache, got.capture) == (7, 2, CaptureMode.OFF)
    assert got.metrics.listen == Address("127.0.0.1", 3)
    assert got.dns.listen == (Address("127.0.0.1", 5353), Address("::1", 5353))


def test_what_a_name_means() -> None:
    text = (
        "dns: {shared_alias: union, empty_services: forward, other_types: forward, vip_ptr: false, ttl: 600}"
    )
    got = built(text, MESH_DNS_ORDER="shuffle", MESH_DNS_SRV="false")
    assert got.dns.names == DOCKERS
    assert built().dns.names == OURS
    assert built(MESH_DNS_VIP_PTR="no", MESH_DNS_SHARED_ALIAS="union").dns.names == replace(
        OURS, vip_ptr=False, shared_alias=SharedAlias.UNION
    )


def test_what_a_name_cannot_mean() -> None:
    text = "dns: {shared_alias: mine, empty_services: drop, vip_ptr: perhaps, orders: rotate}"
    assert problems(text) == [
        "mesh.yml: dns.shared_alias: must be own_stack or union, not 'mine'",
        "mesh.yml: dns.empty_services: must be nodata or forward, not 'drop'",
        "mesh.yml: dns.vip_ptr: must be true or false, not 'perhaps'",
        "mesh.yml: dns.orders: unknown key; did you mean 'order'?",
    ]


def test_upstreams_are_addresses_over_tls_or_not() -> None:
    got = built("dns: {upstreams: [10.0.0.1:53, 'tls://1.1.1.1:853#one.test', 'fe80::1%eth0']}")
    assert got.dns.upstreams == ("10.0.0.1", "tls://1.1.1.1#one.test", "[fe80::1%eth0]")
    forms = "must be ADDR, ADDR:PORT or tls://ADDR[:PORT][#NAME] with an IP address"
    assert problems("dns: {upstreams: [dns.test, 'tls://dns.test', 5, '10.0.0.1:0']}") == [
        f"mesh.yml: dns.upstreams[0]: {forms}, not 'dns.test'",
        f"mesh.yml: dns.upstreams[1]: {forms}, not 'tls://dns.test'",
        f"mesh.yml: dns.upstreams[2]: {forms}, not 5",
        f"mesh.yml: dns.upstreams[3]: {forms}, not '10.0.0.1:0'",
    ]


def test_every_variable_reaches_its_place() -> None:
    got = built(
        MESH_NODE="n",
        MESH_DISCOVERY_KIND="file",
        MESH_DISCOVERY_PATH="/c.yml",
        MESH_DNS_LISTEN="gateway:53, 127.0.0.1:53",
        MESH_DNS_UPSTREAMS="1.1.1.1,::1,[::1]:54,9.9.9.9:5353",
        MESH_DNS_UPSTREAM_ORDER="fastest",
        MESH_DNS_MIXED_CASE="false",
        MESH_DNS_RESOLV_CONF="/host/etc/resolv.conf",
        MESH_DNS_TTL="1",
        MESH_DNS_CACHE="2",
        MESH_CAPTURE="labelled",
        MESH_INGRESS_LISTEN="127.0.0.1",
        MESH_INGRESS_MODE="proxy",
        MESH_METRICS_LISTEN="127.0.0.1:0",
        MESH_ADMIN_LISTEN="[::1]:0",
        MESH_ADMIN_SOCKET="/a",
        MESH_FEED_LISTEN="[::]:9182",
        MESH_STATE_DIR="/s",
        MESH_DOCKER_SOCKET="/d",
        MESH_DOCKER_NETNS="/n",
        MESH_DOCKER_CERTIFICATES="/c",
        MESH_LOG_LEVEL="debug",
        MESH_LOG_FORMAT="text",
    )
    assert got == Config(
        node="n",
        discovery=config.Discovery(DiscoveryKind.FILE, "/c.yml"),
        dns=config.Dns(
            (Address("gateway", 53), Address("127.0.0.1", 53)),
            ("1.1.1.1", "[::1]", "[::1]:54", "9.9.9.9:5353"),
            1,
            2,
            upstream_order=UpstreamOrder.FASTEST,
            mixed_case=False,
            resolv_conf="/host/etc/resolv.conf",
        ),
        capture=CaptureMode.LABELLED,
        ingress=config.IngressConfig("127.0.0.1", PortMode.PROXY),
        metrics=config.Metrics(Address("127.0.0.1", 0)),
        admin=config.Admin(Address("::1", 0), "/a"),
        feed=config.FeedConfig(Address("::", 9182)),
        docker=config.Docker("/d", "/n", "/c"),
        log=config.Log(LogLevel.DEBUG, LogFormat.TEXT),
        state_dir="/s",
    )


def test_an_empty_variable_is_unset_and_others_are_not_ours() -> None:
    assert built(MESH_DNS_TTL="", MESH_IMAGE="x", MESH_LAB_DIR="y", MESH_CONFIG="z", PATH="/bin") == built()


@pytest.mark.parametrize(
    ("flags", "environment"),
    [({"catalog": "c.yml"}, {}), ({}, {"MESH_CATALOG": "c.yml"})],
    ids=["flag", "variable"],
)
def test_naming_a_catalogue_chooses_the_file_source(
    flags: dict[str, str | None], environment: dict[str, str]
) -> None:
    got = config.build("discovery: {kind: docker}", "mesh.yml", environment, flags, "host")
    assert got.discovery == config.Discovery(DiscoveryKind.FILE, "c.yml")


def test_a_catalogue_beside_the_file_is_found_from_anywhere() -> None:
    got = built("discovery: {kind: file, path: catalog.yml}", file="/etc/mesh/mesh.yml")
    assert got.discovery.path == "/etc/mesh/catalog.yml"


def test_a_key_without_a_value_is_a_key_left_out() -> None:
    assert built("dns:\nmetrics: {listen: }\ncapture:") == built()


def test_every_problem_of_every_layer_is_told_and_blamed() -> None:
    text = "dns: {listen: ['foo:53', 'gateway:99999'], tll: 3}\ncapture: of\nnod: a\ningress: [1]"
    told = problems(
        text,
        flags={"metrics": "x"},
        MESH_DNS_TTL="x",
        MESH_DNS_LISTN="y",
        MESH_LOG_LEVEL="loud",
        MESH_INGRESS_MODE="proxy",
        MESH_ADMIN_LISTEN="0.0.0.0:1",
    )
    assert sorted(told) == [
        "command line: --metrics: must be ADDR:PORT with an IP address and a port up to 65535, not 'x'",
        "environment: MESH_ADMIN_LISTEN: must be on loopback, not '0.0.0.0:1': "
        "the admin API asks nobody for a password",
        "environment: MESH_DNS_LISTN: unknown variable; did you mean 'MESH_DNS_LISTEN'?",
        "environment: MESH_DNS_TTL: must be a whole number, not 'x'",
        "environment: MESH_LOG_LEVEL: must be debug, info, warning or error, not 'loud'",
        "mesh.yml: capture: must be all, labelled or off, not 'of'",
        "mesh.yml: dns.listen[0]: must be ADDR:PORT with an IP address, not 'foo:53' (or gateway:PORT)",
        "mesh.yml: dns.listen[1]: must be ADDR:PORT with an IP address and a port up to 65535, "
        "not 'gateway:99999' (or gateway:PORT)",
        "mesh.yml: dns.tll: unknown key; did you mean 'ttl'?",
        "mesh.yml: ingress: must be a mapping, not a list",
        "mesh.yml: nod: unknown key; did you mean 'node'?",
    ]


def test_a_broken_file_does_not_hide_a_broken_variable() -> None:
    told = problems("a: [", MESH_DNS_TTL="-1")
    assert told[0].startswith("mesh.yml: is not valid YAML")
    assert told[1:] == ["environment: MESH_DNS_TTL: must be at least 0, not '-1'"]


def test_kind_and_path_belong_together() -> None:
    assert problems("discovery: {kind: file}") == [
        "mesh.yml: discovery.kind: kind file needs the catalogue's path (discovery.path)"
    ]
    assert problems(MESH_DISCOVERY_PATH="/x") == [
        "environment: MESH_DISCOVERY_PATH: belongs to kind: file; this is kind: docker"
    ]


def test_two_listeners_on_one_port_are_told() -> None:
    assert problems(MESH_ADMIN_LISTEN="127.0.0.1:9180") == [
        "environment: MESH_ADMIN_LISTEN: 127.0.0.1:9180 is already metrics.listen's (0.0.0.0:9180)"
    ]
    built(MESH_ADMIN_LISTEN="127.0.0.1:0", MESH_METRICS_LISTEN="127.0.0.1:0")


def test_load_reads_the_named_file(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yml"
    file.write_text("dns: {ttl: 9}")
    assert config.load(str(file), environment={}).dns.ttl == 9
    assert config.load(environment={"MESH_CONFIG": str(file)}).dns.ttl == 9
    assert config.load(environment={}).node


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read: No such file"):
        config.load(str(tmp_path / "none.yml"), environment={})


def test_addresses_print_as_they_are_written() -> None:
    assert str(Address("::1", 53)) == "[::1]:53"
    assert str(config.parse_address("127.0.0.1:53")) == "127.0.0.1:53"


@given(st.text(max_size=20))
def test_any_address_text_is_an_address_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        address = config.parse_address(text)
        assert config.parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.0.0.0:80", "must be NAME=ADDR:PORT or NAME=ADDR:PORT/tls"),
        ("web=80", "must be ADDR:PORT"),
        ("we b=0.0.0.0:80", "must be NAME=ADDR:PORT"),
        ("web=0.0.0.0:80/ssl", "must end with /tls or the port"),
        ("web=0.0.0.0:80,web=0.0.0.0:443/tls", "with TLS at one address and without at another"),
    ],
)
def test_entry_points_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build("", "", {"MESH_HTTP_ENTRYPOINTS": text}, {}, "here")
    (problem,) = caught.value.problems
    assert problem.key == "MESH_HTTP_ENTRYPOINTS"
    assert message in problem.message


def test_entry_points() -> None:
    text = "Web=0.0.0.0:80, web=[::]:80, secure=0.0.0.0:443/tls"
    found = config.build("", "", {"MESH_HTTP_ENTRYPOINTS": text}, {}, "here").http.entrypoints
    assert list(map(str, found)) == ["web=0.0.0.0:80", "web=[::]:80", "secure=0.0.0.0:443/tls"]


def test_hosts_of_stacks() -> None:
    """In the file by stack, in the variable one by one."""
    text = "http:\n  hosts: {shop: [Shop.example, '*.shop.example'], api: shop.example/api}\n"
    found = config.build(text, "mesh.yml", {}, {}, "x").http.hosts
    assert found == {"shop": ("shop.example", "*.shop.example"), "api": ("shop.example/api",)}
    variable = {"MESH_HTTP_HOSTS": "shop=shop.example, shop=*.shop.example,api=shop.example/api"}
    assert config.build("", "", variable, {}, "x").http.hosts == found


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        ("{shop: [a b]}", "must be a host such as"),
        ("{shop: [a], api: [a]}", "a is given to shop and to api"),
        ("{shop: {a: b}}", "must have a list of hosts"),
        ("[shop]", "must be STACK=HOST"),
        ("3", "must be hosts by stack"),
    ],
)
def test_hosts_that_are_none(hosts: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.build(f"http:\n  hosts: {hosts}\n", "mesh.yml", {}, {}, "x")
    (problem,) = caught.value.problems
    assert (problem.file, problem.key.startswith("http.hosts")) == ("mesh.yml", True)
    assert message in problem.message


def test_encoded_characters_of_an_entry_point() -> None:
    text = "http: {entrypoints: ['web=0.0.0.0:80'], encoded_characters: {web: {allowEncodedSlash: false}}}"
    assert built(text).http.encoded_characters["web"].allowEncodedSlash is False
    made = built(
        text, MESH_HTTP_ENCODED_CHARACTERS="web.allowEncodedHash=true, web.allowEncodedPercent=false"
    )
    assert made.http.encoded_characters["web"].allowEncodedHash is True
    assert made.http.encoded_characters["web"].allowEncodedPercent is False
    assert made.http.encoded_characters["web"].allowEncodedSlash is None  # the variable replaces the file's
    assert built().http.encoded_characters == {}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("other.allowEncodedSlash=true", "there is no entry point 'other' (known are web)"),
        ("web.allowEncodedSlashes=true", "unknown key"),
        ("web.allowEncodedSlash=maybe", "must be true or false"),
        ("web", "must be a mapping"),
    ],
)
def test_what_is_wrong_with_encoded_characters(value: str, why: str) -> None:
    (problem,) = problems(MESH_HTTP_ENTRYPOINTS="web=0.0.0.0:80", MESH_HTTP_ENCODED_CHARACTERS=value)
    assert problem.startswith("environment: MESH_HTTP_ENCODED_CHARACTERS: ")
    assert why in problem
