"""One stack's labels against another stack's hosts: the good owner is answered throughout."""

import asyncio
from pathlib import Path

import pytest
import yaml

from mesh.catalog.model import Service, ServiceNetwork, Task, TaskState
from mesh.catalog.snapshot import Change
from mesh.http.hosts.assigned import AssignedHosts
from mesh.http.hosts.ownership import HostOwnership
from tests.http.conftest import (
    MIDDLEWARE,
    NET,
    ROUTER,
    SERVICE,
    Conversation,
    Stand,
    Tasks,
    World,
    routed,
    saying,
)
from tests.http.conftest import stand as stand
from tests.http.conftest import world as world
from tests.http.routing.test_passthrough import Secure, passed
from tests.http.routing.test_passthrough import secure as secure
from tests.loopback.test_relay_workers import free_port
from tests.loopback.test_sidecar import config, get, running, until

GOOD = {"com.docker.stack.namespace": "good"}
EVIL = {"com.docker.stack.namespace": "evil"}


class Town:
    """The good owner of `shop.example`, there first, and an evil one after it. Ids are so that evil's sorts
    first."""

    def __init__(self, world: World, good: Tasks, evil: Tasks) -> None:
        self.world, self.good, self.evil = world, good, evil

    def put_good(self, rule: str = "Host(`shop.example`)", **more: str) -> None:
        self.world.put("m_good", routed("web", rule, self.good.endpoint.port, **more) | GOOD, self.good)

    def put_evil(self, labels: dict[str, str]) -> None:
        self.world.put("a_evil", labels | EVIL, self.evil)

    def routed(self, rule: str, name: str = "evil", **more: str) -> dict[str, str]:
        return routed(name, rule, self.evil.endpoint.port, **more)

    async def whose(self, url: str, entry: str = "web") -> str:
        status, _, body = await self.world.get(url, entry=entry)
        return body.split(" ")[0] if status == 200 else str(status)

    def told(self) -> list[str]:
        return [str(problem) for problem in self.world.site.problems()]


@pytest.fixture
async def town(world: World) -> Town:
    good, evil = await world.stand.endpoint(saying("good")), await world.stand.endpoint(saying("evil"))
    made = Town(world, good, evil)
    made.put_good()
    return made


BELONGS = "shop.example belongs to stack good since"


@pytest.mark.parametrize(
    ("rule", "more"),
    [
        ("Host(`shop.example`)", {}),
        ("Host(`shop.example`)", {"priority": "2147483648"}),
        ("Host(`SHOP.example`)", {"priority": "9999"}),
        ("Host(`shop.example`) && PathPrefix(`/`)", {}),
        ("Host(`shop.example`) && PathPrefix(`/x`)", {}),
        ("Host(`shop.example`) && Path(`/x`)", {"priority": "9999"}),
        ("Host(`shop.example`) && Method(`GET`)", {}),
        ("Host(`shop.example`) && Query(`q`, `1`)", {}),
        ("Host(`shop.example`) || Host(`other.example`)", {"priority": "9999"}),
        ("Host(`shop.example`) && (PathPrefix(`/x`) || PathPrefix(`/y`))", {"priority": "9999"}),
    ],
)
async def test_the_same_host(town: Town, rule: str, more: dict[str, str]) -> None:
    town.put_evil(town.routed(rule, **more))
    assert await town.whose("shop.example/x?q=1") == "good"
    assert any("a_evil" in one and "belongs to stack good since" in one for one in town.told()), town.told()
    assert town.world.site.ownership.refusals["evil"] >= 1
    if "other" in rule:
        assert await town.whose("other.example/") == "evil", "what nobody else has it may serve"


@pytest.mark.parametrize(
    "rule",
    [
        "PathPrefix(`/`)",
        "HostRegexp(`.*`)",
        "HostRegexp(`^shop\\.example$`)",
        "HostRegexp(`^[a-z]+\\.example$`)",
        "Path(`/x`)",
        "PathRegexp(`^/`)",
        "Method(`GET`)",
        "!Host(`nobody.example`)",
        "Host(`other.example`) || PathPrefix(`/x`)",
        "ClientIP(`0.0.0.0/0`)",
        "Query(`q`, `1`)",
    ],
)
async def test_a_rule_for_many_hosts_gets_what_is_left(town: Town, rule: str) -> None:
    town.put_evil(town.routed(rule, priority="99999"))
    assert await town.whose("shop.example/x?q=1") == "good"


async def test_a_host_that_comes_after_a_catch_all_is_served(town: Town) -> None:
    town.put_evil(town.routed("PathPrefix(`/`)", priority="99999"))
    port = town.good.endpoint.port
    town.world.put("z_new", routed("new", "Host(`new.example`)", port) | GOOD, town.good)
    assert await town.whose("new.example/") == "good"
    assert await town.whose("anything.else/") == "evil"
    assert town.told() == []


async def test_of_two_catch_alls_the_first_goes_on(town: Town) -> None:
    town.put_good("PathPrefix(`/`)")
    town.put_evil(town.routed("PathPrefix(`/`)", priority="99999"))
    assert await town.whose("any.example/") == "good"
    assert "every host belongs to stack good" in town.told()[0]
    town.put_evil(town.routed("HostRegexp(`.+`)", priority="99999"))
    assert await town.whose("any.example/") == "good"


async def test_of_two_expressions_the_first_goes_on(town: Town) -> None:
    town.put_good("HostRegexp(`^[a-z]+\\.tenants\\.example$`)")
    town.put_evil(town.routed("HostRegexp(`tenants`)", priority="99999"))
    assert await town.whose("a.tenants.example/") == "good"
    assert await town.whose("x.tenants.else/") == "evil"


async def test_a_path_of_a_host(town: Town) -> None:
    town.put_good("Host(`shop.example`) && PathPrefix(`/api`)")
    town.put_evil(town.routed("Host(`shop.example`)", priority="99999"))
    assert await town.whose("shop.example/api/x") == "good"
    assert await town.whose("shop.example/x") == "evil", "nobody has had it"
    town.put_evil(town.routed("Host(`shop.example`) && PathPrefix(`/api/admin`)", priority="99999"))
    assert await town.whose("shop.example/api/admin") == "good"
    town.put_evil(town.routed("Host(`shop.example`) && PathPrefix(`/web`)"))
    assert await town.whose("shop.example/web") == "evil"


async def test_it_is_served_when_the_owner_lets_go(town: Town) -> None:
    town.put_evil(town.routed("Host(`shop.example`)"))
    assert await town.whose("shop.example/") == "good"
    town.put_good("Host(`elsewhere.example`)")
    assert await town.whose("shop.example/") == "evil"
    town.put_good()
    assert await town.whose("shop.example/") == "evil", "now it is evil's"
    assert any("m_good" in one and "shop.example belongs to stack evil" in one for one in town.told())
    town.world.change(Change(services={"a_evil": None}))
    assert await town.whose("shop.example/") == "good"
    assert town.told() == []


async def test_within_a_stack_a_host_moves_without_a_gap(town: Town) -> None:
    """Blue and green, and the label moved in one change; evil waits all the time."""
    town.put_evil(town.routed("Host(`shop.example`)"))
    world, port = town.world, town.good.endpoint.port
    green = routed("green", "Host(`shop.example`)", port) | GOOD
    world.put("m_green", green, town.good)
    assert await town.whose("shop.example/") == "good"
    world.change(Change(services={"m_good": None}))
    assert await town.whose("shop.example/") == "good"
    blue = world.snapshot.services["m_green"]
    moved = {
        "m_green": None,
        "z_blue": Service("z_blue", "z_blue", networks=blue.networks, labels=green, tasks=blue.tasks),
    }
    world.change(Change(services=moved))
    assert await town.whose("shop.example/") == "good"
    narrower = routed("green", "Host(`shop.example`) && PathPrefix(`/`) && Method(`GET`)", port) | GOOD
    world.put("z_blue", narrower, town.good)
    assert await town.whose("shop.example/") == "good"


async def test_a_part_of_what_one_had_stays_ones_own(town: Town) -> None:
    town.put_evil(town.routed("Host(`shop.example`)"))
    town.put_good("Host(`shop.example`) && PathPrefix(`/app`)")
    assert await town.whose("shop.example/app") == "good"
    assert await town.whose("shop.example/") == "evil"


async def test_the_same_router_and_service_names(town: Town) -> None:
    """The smaller id takes nothing, and nobody goes down."""
    town.put_evil(town.routed("Host(`evil.example`)", name="web"))
    assert await town.whose("shop.example/") == "good"
    assert await town.whose("evil.example/") == "evil"
    assert town.told() == []


async def test_a_name_that_two_other_stacks_have_is_the_firsts(town: Town) -> None:
    world = town.world
    third = {f"{ROUTER}.third.rule": "Host(`third.example`)", f"{ROUTER}.third.service": "web@swarm"}
    third |= {f"{ROUTER}.third.middlewares": "guard@docker", "com.docker.stack.namespace": "third"}
    world.put("third", third)
    assert await town.whose("third.example/") == "404"
    town.world.put(
        "m_good",
        routed("web", "Host(`shop.example`)", town.good.endpoint.port)
        | GOOD
        | {f"{MIDDLEWARE}.guard.addprefix.prefix": "/good"},
        town.good,
    )
    assert (await world.get("third.example/"))[2] == "good /good/"
    town.put_evil(
        town.routed("Host(`e.example`)", name="web") | {f"{MIDDLEWARE}.guard.addprefix.prefix": "/evil"}
    )
    assert (await world.get("third.example/"))[2] == "good /good/"


async def test_a_faulty_guard_is_not_looked_for_elsewhere(town: Town) -> None:
    """Nor does a wider router get what the guarded one was for."""
    town.put_evil(town.routed("Host(`e.example`)") | {f"{MIDDLEWARE}.auth.addprefix.prefix": "/x"})
    port = town.good.endpoint.port
    labels = routed("web", "Host(`shop.example`)", port) | GOOD
    labels |= {f"{ROUTER}.admin.rule": "Host(`shop.example`) && PathPrefix(`/admin`)"}
    labels |= {f"{ROUTER}.admin.middlewares": "auth", f"{MIDDLEWARE}.auth.basicauth.user": "a:b"}
    town.world.put("m_good", labels, town.good)
    assert await town.whose("shop.example/") == "good"
    assert await town.whose("shop.example/admin") == "404"


@pytest.mark.parametrize("of", ["web", "web@swarm", "web@docker"])
async def test_a_canary_needs_consent(town: Town, of: str) -> None:
    port = str(town.evil.endpoint.port)
    town.put_evil({"mesh.http.port": port, "mesh.http.canary_of": of, "mesh.http.canary": "100"})
    assert await town.whose("shop.example/") == "good"
    assert any("does not allow it (mesh.http.canary_from)" in one for one in town.told())
    allowed = routed("web", "Host(`shop.example`)", town.good.endpoint.port) | GOOD
    town.world.put("m_good", allowed | {"mesh.http.services.web.canary_from": "evil"}, town.good)
    assert await town.whose("shop.example/") == "evil"
    town.put_good()
    assert await town.whose("shop.example/") == "good"


async def test_a_mirror_needs_consent(town: Town) -> None:
    port = town.evil.endpoint.port
    mirror = {"mesh.http.services.m.mirror": "web"}
    town.put_evil(routed("m", "Host(`evil.example`)", port) | mirror)
    connections = town.good.connections
    assert await town.whose("evil.example/") == "evil"
    assert any("does not allow it (mesh.http.mirror_from)" in one for one in town.told())
    assert town.good.connections == connections
    assert await town.whose("shop.example/") == "good"


async def test_services_without_a_stack_are_their_own(world: World) -> None:
    one, two = await world.stand.endpoint(saying("one")), await world.stand.endpoint(saying("two"))
    world.put("one", routed("web", "Host(`a`)", one.endpoint.port), one)
    world.put("another", routed("web", "Host(`a`)", two.endpoint.port, priority="9999"), two)
    assert (await world.get("a/"))[2] == "one /"
    (problem,) = world.site.problems()
    assert (problem.file, "a belongs to service one since" in problem.message) == ("another", True)


async def test_a_host_that_is_given_by_configuration(stand: Stand) -> None:
    """Also where somebody else has had it, and also from rules that name no host."""

    hosts = AssignedHosts({"good": ("shop.example", "*.shop.example")})
    world = World(stand, lambda: 0.0, HostOwnership(hosts))
    good, evil = await stand.endpoint(saying("good")), await stand.endpoint(saying("evil"))
    town = Town(world, good, evil)
    town.put_evil(
        town.routed("Host(`shop.example`) || HostRegexp(`shop`)", service="evil")
        | town.routed("PathPrefix(`/`)", "all", service="evil")
    )
    assert await town.whose("shop.example/") == "404"
    assert await town.whose("x.shop.example/") == "404"
    assert await town.whose("else.example/") == "evil"
    assert any("shop.example belongs to stack good (http.hosts)" in one for one in town.told())
    town.put_good("Host(`shop.example`) || HostRegexp(`^x`)")
    assert await town.whose("shop.example/") == "good"
    assert await town.whose("x.shop.example/") == "good"


async def test_what_managers_have_recorded_decides(town: Town) -> None:
    """Whoever comes first after a restart."""
    world, networks = town.world, town.world.snapshot.services["m_good"].networks
    world.change(Change(services={"m_good": None}))
    town.put_evil(town.routed("Host(`shop.example`)"))
    assert await town.whose("shop.example/") == "evil"
    tasks = world.snapshot.services["a_evil"].tasks
    evil = Service(
        "a_evil",
        "a_evil",
        networks=networks,
        labels=town.routed("Host(`shop.example`)") | EVIL,
        tasks=tasks,
        holds={},
    )
    town.put_good()
    good = world.snapshot.services["m_good"]
    holds = {"shop.example": 1000.0, "service web": 1000.0}
    recorded = Service(
        good.id, good.name, networks=networks, labels=good.labels, tasks=good.tasks, holds=holds
    )
    world.change(Change(services={"m_good": recorded, "a_evil": evil}))
    assert await town.whose("shop.example/") == "good"
    assert any(
        "shop.example belongs to stack good since 1970-01-01 00:16:40 UTC" in one for one in town.told()
    )
    world.change(Change(services={"m_good": None, "a_evil": evil}))
    assert await town.whose("shop.example/") == "404", "the managers have not said so yet"
    world.change(
        Change(
            services={
                "a_evil": Service(
                    "a_evil",
                    "a_evil",
                    networks=networks,
                    labels=evil.labels,
                    tasks=tasks,
                    holds={"shop.example": 2000.0},
                )
            }
        )
    )
    assert await town.whose("shop.example/") == "evil"


@pytest.mark.parametrize(
    "labels",
    [
        {f"{ROUTER}.bad.rule": "HostRegexp(``)"},
        {f"{ROUTER}.bad.rule": "HostRegexp(`^`)"},
        {f"{ROUTER}.bad.rule": "HostRegexp(`shop|`)"},
        {f"{ROUTER}.bad.rule": "Host(``)"},
        {f"{ROUTER}.bad.rule": "PathPrefix(``)"},
        {f"{ROUTER}.bad.rule": "Path(``)"},
        {f"{ROUTER}.bad.rule": "PathRegexp(``)"},
        {f"{ROUTER}.bad.rule": "ClientIP()"},
        {f"{ROUTER}.bad.rule": "ClientIP(``)"},
        {f"{ROUTER}.bad.rule": ""},
        {f"{ROUTER}.bad.rule": "Host(`x`) || HostRegexp(``)"},
        {f"{ROUTER}.bad.middleware": "auth"},
        {f"{ROUTER}.bad.middlewares": ""},
        {f"{ROUTER}.bad.middlewares": "auth,"},
        {f"{ROUTER}.bad.middlewares": "nobody"},
        {f"{ROUTER}.bad.entrypoints": ""},
        {f"{ROUTER}.bad.entrypoint": "internal"},
        {f"{ROUTER}.bad.tls.options": "mtls@file"},
        {f"{ROUTER}.bad.tls.option": "mtls"},
        {f"{ROUTER}.bad@docker.middlewares": "auth"},
        {"traefik.http.router.bad.middlewares": "auth"},
        {"traefik.enable": "flase"},
        {f"{ROUTER}.bad.middlewares": "m", f"{MIDDLEWARE}.m.basicauth.user": "a:b"},
        {f"{ROUTER}.bad.middlewares": "m", f"{MIDDLEWARE}.m.ipallowlist.sourcerang": "10.0.0.0/8"},
        {f"{ROUTER}.bad.middlewares": "m", f"{MIDDLEWARE}.m.forwardauth.adress": "http://x"},
        {f"{ROUTER}.bad.middlewares": "m", f"{MIDDLEWARE}.m.ratelimit.avrage": "1"},
        {f"{ROUTER}.bad.middlewares": "m", f"{MIDDLEWARE}.m.inflightreq.amont": "1"},
        {f"{ROUTER}.bad.middlewares": "m", f"{MIDDLEWARE}.m.chain.middlewares": "auth,"},
        {f"{ROUTER}.bad.middlewares": "m", f"{MIDDLEWARE}.m.buffering.maxrequestbodybyte": "1"},
        {
            f"{ROUTER}.bad.middlewares": "m",
            f"{MIDDLEWARE}.m.basicauth.users": "a:{SHA}0DPiKuNIrrVmD8IUCuw1hQxNqZc=",
            f"{MIDDLEWARE}.m.basicauth.user": "a:b",
        },
        {"mesh.http.host": "bad.example", "mesh.http.middleware": "auth"},
        {"mesh.http.host": "bad.example", "mesh.http.middlewares": ""},
        {"mesh.http.host": ""},
        {"mesh.http.rule": "HostRegexp(``)"},
        {f"{ROUTER}.bad.middlewares": "auth", f"{ROUTER}.Bad.Middlewares": "none"},
    ],
)
async def test_less_guarded_than_asked_for_is_not_served(town: Town, labels: dict[str, str]) -> None:
    port = {f"{SERVICE}.bad.loadbalancer.server.port": str(town.evil.endpoint.port)}
    ours = {"mesh.http.port": str(town.evil.endpoint.port)}
    mesh = any(key.startswith("mesh.") for key in labels)
    base = ours if mesh else port | {f"{ROUTER}.bad.rule": "Host(`bad.example`)"}
    base |= {} if mesh else {f"{MIDDLEWARE}.auth.ipallowlist.sourcerange": "127.0.0.0/8"}
    town.put_evil(base)
    assert await town.whose("bad.example/") == ("404" if mesh else "evil")
    town.put_evil(base | labels)
    for url in ("bad.example/", "x/", "a-evil/", "shop/"):
        assert await town.whose(url) == "404", url
    assert any("a_evil" in one for one in town.told())
    assert await town.whose("shop.example/") == "good"


async def test_no_certificate_of_anothers_host_is_ordered(town: Town) -> None:
    """Not for a refused router, and not by `tls.domains` of one that is served."""
    wanted = town.world.site.acme_domains
    town.put_evil(town.routed("Host(`shop.example`)", **{"tls.certresolver": "le"}))
    assert wanted.wanted == []
    domains = {
        "tls.certresolver": "le",
        "tls.domains[0].main": "evil.example",
        "tls.domains[0].sans": "shop.example",
    }
    town.put_evil(town.routed("Host(`evil.example`)", **domains))
    assert (wanted.wanted, wanted.has("shop.example")) == ([], False)
    assert any("the certificate of shop.example belongs to stack good" in one for one in town.told())
    town.put_good(**{"tls.certresolver": "le"})
    assert wanted.wanted == [("shop.example",)]
    assert wanted.owner(("shop.example",)) == "good"
    town.world.change(Change(services={"m_good": None}))
    assert wanted.wanted == [("evil.example", "shop.example")]


@pytest.mark.parametrize("alias", [True, False])
async def test_whom_a_guard_asks_is_its_own_stacks(town: Town, alias: bool) -> None:
    """Evil calls a service `auth`, by its name or beside it on the same network, to let everybody in."""
    world = town.world

    async def no(one: Conversation) -> None:
        while await one.head():
            await one.say("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")

    keeper = await world.stand.endpoint(no)
    port = keeper.endpoint.port
    evil = await world.stand.endpoint_at("127.0.0.5", port, saying("evil"))

    def running(id_: str, name: str, stack: dict[str, str], task: Tasks, *aliases: str) -> None:
        tasks = (Task(id_, id_, "here", TaskState.RUNNING, {NET.id: task.endpoint.address}),)
        networks = (ServiceNetwork(NET.id, aliases=aliases),)
        world.change(Change(services={id_: Service(id_, name, networks=networks, labels=stack, tasks=tasks)}))

    guard = {f"{MIDDLEWARE}.auth.forwardauth.address": f"http://auth:{port}/"}
    labels = routed("web", "Host(`shop.example`)", town.good.endpoint.port, middlewares="auth") | guard | GOOD
    world.put("m_good", labels, town.good)
    running("x", "good_auth", GOOD, keeper, "auth")
    assert await town.whose("shop.example/") == "403"
    running("a", "evil_auth" if alias else "auth", EVIL if alias else {}, evil, *(("auth",) if alias else ()))
    assert await town.whose("shop.example/") == "403"
    assert evil.connections == 0


# --- TLS that is passed on ---


async def test_tls_of_a_host_that_http_has(secure: Secure, stand: Stand) -> None:
    """By its name, by a wildcard, and for all hosts; evil is there first, and good comes with its name."""
    good, evil = await stand.endpoint(saying("good")), await secure.application("evil", "evil.example")
    for rule in ("HostSNI(`*.example`)", "HostSNI(`*`)"):
        secure.put("a_evil", passed(rule, evil.endpoint.port, "web") | EVIL, evil)
        assert (await secure.get("ours.example"))[0] == "evil /", "nobody else has it"
        secure.put("m_good", routed("web", "Host(`ours.example`)", good.endpoint.port) | GOOD, good)
        assert (await secure.get("ours.example"))[0] == "good /", rule
        assert (await secure.get("other.example"))[0] == "evil /"
        secure.put("m_good", {})
    secure.put("m_good", routed("web", "Host(`ours.example`)", good.endpoint.port) | GOOD, good)
    secure.put("a_evil", passed("HostSNI(`ours.example`)", evil.endpoint.port, "web") | EVIL, evil)
    assert (await secure.get("ours.example"))[0] == "good /"
    (told,) = [str(one) for one in secure.passing.problems()]
    assert told.startswith("a_evil")
    assert "HostSNI(`ours.example`) belongs to stack good since" in told
    secure.put("m_good", {})
    assert (await secure.get("ours.example"))[0] == "evil /", "good has let go of it"


async def test_tls_for_hosts_that_http_has_by_an_expression(secure: Secure, stand: Stand) -> None:
    good, evil = await stand.endpoint(saying("good")), await secure.application("evil", "evil.example")
    rule = "HostRegexp(`^[a-z]+\\.tenants\\.example$`)"
    secure.put("m_good", routed("web", rule, good.endpoint.port) | GOOD, good)
    for name in ("*.tenants.example", "*"):
        secure.put("a_evil", passed(f"HostSNI(`{name}`)", evil.endpoint.port, "web") | EVIL, evil)
        assert (await secure.get("one.tenants.example"))[0] == "good /"


async def test_http_of_a_host_whose_tls_is_passed_on(secure: Secure, stand: Stand) -> None:
    """Also under the same names of router and service, with an id that sorts first."""
    good, evil = await secure.application("good", "good.example"), await stand.endpoint(saying("evil"))
    secure.put("m_good", passed("HostSNI(`good.example`)", good.endpoint.port, "web") | GOOD, good)
    labels = routed("web", "Host(`good.example`) && PathPrefix(`/x`)", evil.endpoint.port, priority="9999")
    bad = await secure.application("bad", "bad.example")
    labels |= passed("HostSNI(`bad.example`)", bad.endpoint.port, "web")
    secure.put("a_evil", labels | EVIL, evil)
    assert (await secure.get("good.example"))[0] == "good /"
    assert any("good.example/x* belongs to stack good" in str(one) for one in secure.site.problems())
    assert list(secure.passing.problems()) == []


# --- the whole sidecar ---

AT = {"good": "127.9.0.3", "evil": "127.9.0.4"}


def stacks(*services: tuple[str, str, str, Tasks]) -> str:
    """(service, stack, rule, its task)."""
    return yaml.safe_dump(
        {
            "networks": {"inside": {"subnet": "127.9.0.0/16"}},
            "services": {
                name: {
                    "networks": {"inside": {}},
                    "labels": routed("web", rule, task.endpoint.port) | {"com.docker.stack.namespace": stack},
                    "tasks": [
                        {
                            "name": f"{name}.1",
                            "node": "here",
                            "state": "running",
                            "addresses": {"inside": task.endpoint.address},
                        }
                    ],
                }
                for name, stack, rule, task in services
            },
        },
        sort_keys=False,
    )


class Entry:
    """An entry point of a whole sidecar."""

    def __init__(self) -> None:
        self.port = free_port()

    async def whose(self, host: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        one = Conversation(reader, writer)
        await one.say(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
        status, _, body = await one.response()
        one.close()
        return body.decode().split(" ")[0] if status == 200 else str(status)

    async def served(self, host: str, by: str) -> None:
        async def look() -> bool:
            return await self.whose(host) == by

        await until(look, f"{host} is served by {by}")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_it_survives_restarts(stand: Stand, tmp_path: Path, workers: str) -> None:
    """Evil comes later, stands first in the file and in the alphabet, and has waited through the restart."""
    file, entry = tmp_path / "catalog.yml", Entry()
    good = await stand.endpoint_at(AT["good"], 0, saying("good"))
    evil = await stand.endpoint_at(AT["evil"], 0, saying("evil"))
    of_good = ("z_web", "zoo", "Host(`shop.example`)", good)
    of_evil = ("a_web", "ape", "Host(`shop.example`) || Host(`ape.example`)", evil)
    at = f"web=127.0.0.1:{entry.port}"
    settings = config(tmp_path, MESH_HTTP_ENTRYPOINTS=at, MESH_HTTP_WORKERS=workers)
    file.write_text(stacks(of_good))
    async with running(settings):
        await entry.served("shop.example", "good")
        file.write_text(stacks(of_evil, of_good))
        await entry.served("ape.example", "evil")
        assert {await entry.whose("shop.example") for _ in range(8)} == {"good"}
    async with running(settings) as bound:
        await entry.served("ape.example", "evil")
        assert {await entry.whose("shop.example") for _ in range(8)} == {"good"}
        problems = (await get(bound.admin, "/v1/status"))[1]["problems"]
        (told,) = [one for one in problems if "shop.example belongs to stack zoo since" in one]
        assert told.startswith("a_web: traefik.http.routers.web.rule: ")
        metrics = (await get(bound.metrics, "/metrics"))[1]
        assert 'mesh_http_host_claims_refused_total{stack="ape"} 1.0' in metrics
        file.write_text(stacks(of_evil))
        await entry.served("shop.example", "evil")
        file.write_text(stacks(of_evil, of_good))
    async with running(settings):
        await entry.served("ape.example", "evil")
        assert {await entry.whose("shop.example") for _ in range(8)} == {"evil"}, "good has let go of it"


async def test_hosts_by_configuration(stand: Stand, tmp_path: Path) -> None:
    file, entry = tmp_path / "catalog.yml", Entry()
    good = await stand.endpoint_at(AT["good"], 0, saying("good"))
    evil = await stand.endpoint_at(AT["evil"], 0, saying("evil"))
    settings = config(
        tmp_path,
        MESH_HTTP_ENTRYPOINTS=f"web=127.0.0.1:{entry.port}",
        MESH_HTTP_HOSTS="zoo=*.shop.example,zoo=shop.example,ape=ape.shop.example",
    )
    rule = "Host(`shop.example`) || Host(`ape.shop.example`) || Host(`x.shop.example`)"
    file.write_text(stacks(("a_web", "ape", rule, evil)))
    async with running(settings):
        await entry.served("ape.shop.example", "evil")
        assert [await entry.whose(host) for host in ("shop.example", "x.shop.example")] == ["404", "404"]
        file.write_text(stacks(("a_web", "ape", rule, evil), ("z_web", "zoo", rule, good)))
        await entry.served("shop.example", "good")
        assert await entry.whose("x.shop.example") == "good"
        assert await entry.whose("ape.shop.example") == "evil"


async def test_where_labels_may_not_send_us(stand: Stand, tmp_path: Path) -> None:
    """`forwardauth` to this machine: nobody is asked, nobody comes in, and it is told and counted."""
    file, entry = tmp_path / "catalog.yml", Entry()
    asked = await stand.endpoint_at(AT["evil"], 0, saying("inner"))
    good = await stand.endpoint_at(AT["good"], 0, saying("good"))
    port = asked.endpoint.port
    guards = {
        "loopback": f"http://127.9.0.4:{port}/",
        "mapped": f"http://[::ffff:127.9.0.4]:{port}/",
        "own": f"http://0.0.0.0:{port}/",
        "metadata": "http://169.254.169.254/latest/",
        "name": f"http://localhost.localdomain:{port}/",
    }
    text = yaml.safe_load(stacks(("z_web", "zoo", "Host(`shop.example`)", good)))
    labels = text["services"]["z_web"]["labels"]
    for name, address in guards.items():
        labels |= {f"{ROUTER}.{name}.rule": f"Host(`{name}.example`)", f"{ROUTER}.{name}.middlewares": name}
        labels |= {f"{MIDDLEWARE}.{name}.forwardauth.address": address}
    file.write_text(yaml.safe_dump(text))
    at = {"MESH_HTTP_ENTRYPOINTS": f"web=127.0.0.1:{entry.port}"}
    async with running(config(tmp_path, **at)) as bound:
        await entry.served("shop.example", "good")
        for name in guards:
            assert await entry.whose(f"{name}.example") == "503", name
        assert asked.connections == 0
        problems = "\n".join((await get(bound.admin, "/v1/status"))[1]["problems"])
        for why in ("127.9.0.4 is loopback", "169.254.169.254 is link local", "0.0.0.0 is unspecified"):
            assert f"{why}: refused (http.allow_internal_targets)" in problems
        counted = 'mesh_http_internal_targets_refused_total{reason="loopback"}'
        async with asyncio.timeout(20):
            while counted not in (await get(bound.metrics, "/metrics"))[1]:
                await asyncio.sleep(0.05)
        assert await entry.whose("shop.example") == "good"
    async with running(config(tmp_path, **at, MESH_HTTP_ALLOW_INTERNAL_TARGETS="127.9.0.4")):
        await entry.served("loopback.example", "good")
        assert asked.connections == 1
