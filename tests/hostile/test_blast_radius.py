"""Whatever comes from outside: nothing of ours fails, and a good service beside it is answered throughout.

One property for each source: labels, the engine's JSON, reports of nodes, messages of the feed, answers to
probes, bytes in tunnels. And the cases that were seen to end sidecars, each by name.
"""

import asyncio
import copy
import json
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.balance.health_state import Result
from mesh.catalog.cluster_view import ClusterView
from mesh.catalog.model import (
    NO_RETURN_PATH,
    Attachment,
    Container,
    Neighbour,
    Network,
    Node,
    Port,
    ReturnPath,
    Service,
    ServiceNetwork,
    Task,
    TaskState,
)
from mesh.catalog.snapshot import Change
from mesh.discovery import prober
from mesh.discovery.engine_json import container, network_view
from mesh.discovery.merge import Merger
from mesh.discovery.plain_containers import Neighbours
from mesh.discovery.probe import Probe
from mesh.discovery.return_path_overlay import ReturnPathOverlay
from mesh.discovery.swarm_json import SwarmReader, read_each
from mesh.errors import DiscoveryError
from mesh.internal_errors import ERRORS
from mesh.net.tasks import Tasks
from mesh.peers.feed.codec import decode, encode_view
from mesh.peers.report.codec import NodeReport, decode_report, encode_report
from mesh.peers.tunnel.copy import TunnelSide, pump
from tests.dns.fakes import question, rcode, say, upstream
from tests.dns.test_resolver import Asking
from tests.dns.world import snapshot
from tests.hostile.node import NET, a_node
from tests.hostile.node import Node as Sidecar
from tests.http.conftest import Conversation, World, routed, saying, serving
from tests.loopback.test_sidecar import catalogue, config, lookup, running
from tests.support import docker_fixtures as docker

LONG = "9" * 4301
EXAMPLES = settings(max_examples=150, deadline=None)

# --- values that are not what anybody expects ---

numbers = st.sampled_from(
    [
        LONG,
        "-1",
        "0",
        "65536",
        "080",
        "²",
        "٣",
        "1e9",
        "1_0",
        "",
        " 1 ",
        "0x1f",
        "1.5",
        "NaN",
        "inf",
        "9" * 30,
    ]
)
words = (
    numbers
    | st.text(max_size=20)
    | st.sampled_from(["true", "Host(`x`)", "Host(`", "tcp", "http:/", "x" * 9000])
)
ROUTER, SERVICE, MIDDLEWARE = (
    f"traefik.http.{kind}" for kind in ("routers.r", "services.s", "middlewares.m")
)
TCP_SERVICE = "traefik.tcp.services.t"
KEYS = [
    "mesh.enable mesh.capture mesh.dns.ttl mesh.dns.srv.W mesh.http.rule mesh.http.port mesh.http.W.rule W",
    "mesh.port.N.mode mesh.port.N.health mesh.port.80.drain mesh.port.80.policy mesh.port.80.W",
    "mesh.port.80.trusted mesh.port.80.mode mesh.http.max_requests com.docker.stack.namespace",
    f"traefik.enable {ROUTER}.rule {ROUTER}.priority {ROUTER}.middlewares",
    f"{ROUTER}.tls.domains[N].main {ROUTER}.W",
    f"{SERVICE}.loadbalancer.server.port {SERVICE}.loadbalancer.healthcheck.interval {SERVICE}.W",
    f"{SERVICE}.loadbalancer.healthcheck.path {MIDDLEWARE}.ratelimit.average {MIDDLEWARE}.ratelimit.period",
    f"{MIDDLEWARE}.redirectregex.regex {MIDDLEWARE}.W.W traefik.tcp.routers.t.rule",
    f"{TCP_SERVICE}.loadbalancer.server.port {TCP_SERVICE}.loadbalancer.proxyprotocol.version",
]
keys = st.builds(
    lambda template, word, number: template.replace("W", word).replace("N", number),
    st.sampled_from(" ".join(KEYS).split()),
    words,
    numbers,
)
labels = st.dictionaries(keys, words, max_size=12)

values = st.sampled_from(
    [
        None,
        5,
        -1,
        10**30,
        1.5,
        True,
        "",
        "x",
        "\ud800",
        "a\0b",
        LONG,
        [],
        {},
        [None],
        {"x": {"y": []}},
        [[[[]]]],
    ]
)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) in it."""
    inner = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in inner:
        yield document, key
        if isinstance(value, dict | list):
            yield from places(value)


@st.composite
def mutated(draw: st.DrawFn, document: Any, most: int = 4) -> Any:
    """The document with some of its parts gone, or in their place what nobody expects."""
    result = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        known = list(places(result))
        if not known:
            break
        holder, key = known[draw(st.integers(0, len(known) - 1))]
        if draw(st.booleans()):
            del holder[key]
        else:
            holder[key] = copy.deepcopy(draw(values))  # or the next step changes it for all
    return result


# --- the stand ---


@contextmanager
def on_a_node() -> Iterator[tuple[Sidecar, Callable[[Awaitable[None]], None]]]:
    """For examples of a property: one node for all, and what runs a step of one on its loop."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        made = a_node()
        node = runner.run(made.__aenter__())
        stack.callback(lambda: runner.run(made.__aexit__(None, None, None)))

        async def awaited(step: Awaitable[None]) -> None:
            await step

        yield node, lambda step: runner.run(awaited(step))


def faults() -> dict[str, int]:
    """Of ours. That an object of the engine's is left out is none."""
    return {where: count for where, count in ERRORS.counts.items() if not where.startswith("Docker's ")}


async def published(node: Sidecar, change: Change) -> None:
    node.store.publish(change)
    await node.settle()
    await node.answers()
    assert faults() == {}


def bad_service(written: dict[str, str], number: int = 0) -> Service:
    id_ = f"bad{number}"
    return Service(
        id_,
        id_,
        networks=(ServiceNetwork(NET.id, "127.0.0.201"),),
        ports=(Port(0, 80),),
        labels=written,
        tasks=(
            Task(f"t{number}", f"{id_}.1", "here", TaskState.RUNNING, {NET.id: "127.0.0.202"}, f"c{number}"),
        ),
    )


# --- labels ---


def test_any_labels() -> None:
    with on_a_node() as (node, run):

        @EXAMPLES
        @given(st.lists(labels, min_size=1, max_size=3))
        def examine(several: list[dict[str, str]]) -> None:
            services = {f"bad{n}": bad_service(one, n) for n, one in enumerate(several)}
            containers = {
                f"c{n}": Container(
                    f"c{n}", "x", "/none", (Attachment(NET.id, "127.0.0.202"),), service=f"bad{n}", labels=one
                )
                for n, one in enumerate(several)
            }
            run(published(node, Change(services=services, containers=containers)))
            run(
                published(
                    node, Change(services=dict.fromkeys(services), containers=dict.fromkeys(containers))
                )
            )

        examine()


@pytest.mark.parametrize(
    "written",
    [
        {f"mesh.port.{LONG}.mode": "proxy"},
        {
            "traefik.tcp.routers.t.rule": "HostSNI(`x`)",
            "traefik.tcp.services.t.loadbalancer.server.port": LONG,
        },
        {"mesh.port.²²²².mode": "proxy"},
        {"mesh.dns.ttl": LONG},
        {"traefik.http.routers.r.rule": "Host(`a`)", "traefik.http.routers.r.priority": LONG},
    ],
    ids=lambda one: min(one, key=len)[:40],
)
async def test_labels_that_ended_every_sidecar(tmp_path: Path, written: dict[str, str]) -> None:
    """While it runs, and at its next start."""
    file = tmp_path / "catalog.yml"
    good = catalogue("127.9.0.3")
    # YAML wants the mark for a key as long as these.
    listed = ", ".join(f"? {json.dumps(key)} : {json.dumps(value)}" for key, value in written.items())
    bad = f"services:\n  bad:\n    labels: {{{listed}}}\n    networks: {{inside: {{}}}}\n"
    bad = good.replace("services:\n", bad)
    file.write_text(good)
    async with running(config(tmp_path)) as bound:
        file.write_text(bad)
        async with asyncio.timeout(10):
            while (await lookup(bound.dns[0], "bad"))[0] != 0:
                await asyncio.sleep(0.02)
        assert await lookup(bound.dns[0], "web") == (0, ["127.9.0.2"])
    async with running(config(tmp_path)) as bound:
        assert await lookup(bound.dns[0], "web") == (0, ["127.9.0.2"])
    assert faults() == {}


# --- the engine's JSON ---

LISTS = {
    "nodes": docker.NODES,
    "networks": docker.NETWORKS,
    "services": [docker.WEB, docker.service("s2", "other", ports=[docker.port(81, 80)])],
    "tasks": docker.WEB_TASKS,
}


def as_change(view: ClusterView) -> Change:
    """Without ports, which other tests may have, and an ingress network, which the good one is not on."""
    services = {id_: replace(one, ports=()) for id_, one in view.services.items()}
    networks = {id_: replace(one, ingress=False) for id_, one in view.networks.items()}
    return Change(view.nodes, {**networks, NET.id: NET}, services)


def test_any_lists_of_the_manager_api() -> None:
    with on_a_node() as (node, run):

        @EXAMPLES
        @given(mutated(LISTS))
        def examine(lists: dict[str, Any]) -> None:
            found = [lists.get(kind) for kind in LISTS]
            view = SwarmReader().read(*(one if isinstance(one, list) else [] for one in found))
            assert decode(encode_view(view)) is not None  # the feed can tell it
            run(published(node, as_change(view)))

        examine()


def test_one_broken_object_costs_the_others_nothing() -> None:
    ERRORS.clear()
    for broken in (
        {},
        None,
        5,
        {"ID": 7},
        {"ID": "x", "Spec": {"Name": 5}},
        {"ID": "x", "Endpoint": {"Ports": [5]}},
    ):
        view = SwarmReader().read(
            docker.NODES, docker.NETWORKS, [broken, docker.WEB], [{}, None, *docker.WEB_TASKS]
        )
        assert [one.name for one in view.services.values() if one.id == "webservice"] == ["shop_web"]
        assert len(view.services["webservice"].tasks) == 3
        assert "x" not in view.services
    assert any("left out" in one for one in ERRORS.problems())


@EXAMPLES
@given(mutated(docker.WEB_CONTAINER), mutated(docker.gossip(docker.NETWORKS[1], {})))
def test_any_container_and_any_gossip(inspected: Any, gossip: Any) -> None:
    list(read_each("container", [inspected], container))
    with suppress(KeyError, TypeError, AttributeError, ValueError):  # translated where it is asked for
        network_view(gossip)


# --- reports of nodes ---

REPORT = NodeReport(
    {"task1": "service1"},
    {"c1": Neighbour("", "c1", "tool", (Attachment(NET.id, "127.0.0.9", ("alias",)),))},
    ReturnPath("127.0.0.7", "02:42:7f:00:00:07", ("127.0.0.7",), ("127.0.0.8",)),
)


def test_any_report() -> None:
    with on_a_node() as (node, run):
        nodes = {id_: Node(id_, id_, "127.0.0.1") for id_ in ("n1", "n2")}

        @EXAMPLES
        @given(mutated(json.loads(encode_report(REPORT))) | st.binary(max_size=50))
        def examine(document: Any) -> None:
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            try:
                report = decode_report(data)
            except DiscoveryError:
                return
            book, others = ReturnPathOverlay(), Neighbours()
            view = ClusterView(nodes, {NET.id: Network(NET.id, NET.name, NET.subnets, ingress=True)}, {})
            others.lay_over(book.lay_over(view))
            for change in (book.report("n1", report.return_path), others.report("n1", report.containers)):
                run(published(node, change))

        examine()


def test_an_entry_that_is_no_address_after_one_that_is() -> None:
    """Two nodes claim one MAC address; it stood in saved views, too."""
    with on_a_node() as (node, run):
        mac = "02:42:7f:00:00:07"
        for said in (
            ReturnPath("127.0.0.7", mac, ("127.0.0.7",)),
            ReturnPath("x", mac, ("x",), ("y",)),
            NO_RETURN_PATH,
        ):
            run(published(node, Change(nodes={"n2": Node("n2", "n2", "127.0.0.2", return_path=said)})))
        assert node.store.current.nodes["n2"].return_path == NO_RETURN_PATH
        bad = Node("n3", "n3", "127.0.0.3", return_path=ReturnPath("x", mac))
        saved = decode(encode_view(ClusterView({"n3": bad}, {}, {})))
        assert isinstance(saved, ClusterView)
        run(published(node, Change(nodes=saved.nodes)))
        assert node.store.current.nodes["n3"].return_path == NO_RETURN_PATH
        assert [str(one) for one in node.store.intake.problems()] == [
            "node n3: return path: 'x' is no IPv4 address; left out"
        ]


# --- messages of the feed ---

VIEW = json.loads(
    encode_view(
        ClusterView(
            {"n2": Node("n2", "two", "127.0.0.2", return_path=REPORT.return_path)},
            {NET.id: NET},
            {"bad0": bad_service({"mesh.dns.ttl": "5"})},
            {"n2/c1": Neighbour("n2", "c1", "tool", (Attachment(NET.id, "127.0.0.9"),))},
        )
    )
)


def test_any_message_of_the_feed() -> None:
    with on_a_node() as (node, run):

        @EXAMPLES
        @given(
            mutated(VIEW)
            | st.binary(max_size=50)
            | st.sampled_from([b"[" * 100_000, LONG.encode(), b'{"view":' + b"{" * 9000])
        )
        def examine(document: Any) -> None:
            data = document if isinstance(document, bytes) else json.dumps(document).encode()
            try:
                view = decode(data)
            except DiscoveryError:
                return
            if isinstance(view, ClusterView):
                ours, _ = Merger().set_cluster(view)
                networks = {id_: one for id_, one in ours.networks.items() if id_ != NET.id}
                run(published(node, Change(ours.nodes, networks, ours.services, neighbours=ours.neighbours)))

        examine()


# --- answers to probes ---

STATUSES = [
    f"HTTP/1.1 {LONG} x\r\n",
    "HTTP/1.1 ²00 OK\r\n",
    "HTTP/1.1 200",
    "HTTP/1.1 200 OK\r\n",
    "\n",
    "x" * 9000,
]
ANSWERS = st.sampled_from(STATUSES) | st.text(max_size=40)


def test_any_answer_to_a_probe_in_any_pieces() -> None:
    async def ask(pieces: list[bytes]) -> Result:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            asking = asyncio.create_task(
                prober._ask(loop, ours, Probe("t", "s", "web", "", "127.0.0.1", 80, "/"))
            )
            await asyncio.sleep(0)
            for piece in pieces:
                with suppress(OSError):  # it has read enough
                    await loop.sock_sendall(theirs, piece)
                await asyncio.sleep(0)
            theirs.close()
            try:
                return await asyncio.wait_for(asking, 10)
            except OSError:  # as `look` does
                return Result.BROKEN

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(ask([b"HTTP/1.1 20", b"0 OK\r\n"])) is Result.WELL
        digits = LONG.encode()
        assert runner.run(ask([b"HTTP/1.1 " + digits[:4000], digits[4000:] + b" x\r\n"])) is Result.BROKEN

        @EXAMPLES
        @given(ANSWERS, st.lists(st.integers(0, 9000), max_size=3))
        def examine(answer: str, cuts: list[int]) -> None:
            data, at = answer.encode(), [0, *sorted(cuts), 10_000]
            pieces = [data[a:b] for a, b in pairwise(at)]
            result = runner.run(ask([one for one in pieces if one]))
            assert (result is Result.WELL) <= data.startswith(b"HTTP/")

        examine()


async def test_a_status_of_thousands_of_digits_to_a_check_and_to_a_request(world: World) -> None:
    """In two pieces, as the probe's."""
    ERRORS.clear()
    checked = asyncio.Event()

    async def endpoint(one: Conversation) -> None:
        while head := await one.head():
            if "/health" in head:
                checked.set()
            await one.say(f"HTTP/1.1 {LONG[:4000]}")
            await asyncio.sleep(0)
            await one.say(f"{LONG[4000:]} x\r\n\r\n")

    async with serving(endpoint) as bad, serving(saying("good")) as good:
        written = routed("a", "Host(`a.example`)", bad.endpoint.port)
        written[f"{SERVICE.removesuffix('.s')}.a.loadbalancer.healthcheck.path"] = "/health"
        written[f"{SERVICE.removesuffix('.s')}.a.loadbalancer.healthcheck.interval"] = "1s"
        world.put("a", written, bad)
        world.put("g", routed("g", "Host(`g.example`)", good.endpoint.port), good)
        await asyncio.wait_for(checked.wait(), 10)
        assert (await world.get("a.example/"))[0] == 502
        assert (await world.get("g.example/"))[0] == 200
    assert not ERRORS.counts


# --- tunnels ---


async def tunnel(steps: list[tuple[str, int]], failures: list[BaseException]) -> None:
    """A client, a tunnel between two streams, a task; the steps are what the two ends do."""
    tasks = Tasks(lambda _name, error: failures.append(error))
    listener = socket.create_server(("127.0.0.1", 0))
    ends: list[socket.socket] = []
    sides: list[TunnelSide] = []
    for _ in range(2):
        outside = socket.create_connection(listener.getsockname())
        inside, _ = listener.accept()
        outside.setblocking(False)
        ends.append(outside)
        sides.append(TunnelSide(*await asyncio.open_connection(sock=inside)))
    listener.close()
    pumping = tasks.start(pump(tasks, *sides), "tunnel")
    for what, amount in steps:
        end = ends[amount % 2]
        with suppress(OSError):
            if what == "say":
                end.send(b"x" * amount)
            elif what == "shut":
                end.shutdown(socket.SHUT_WR)
            else:
                if what == "reset":
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                end.close()
        for _ in range(amount % 3):
            await asyncio.sleep(0)
    for end in ends:
        end.close()
    await asyncio.wait_for(asyncio.gather(pumping, return_exceptions=True), 10)
    assert all(side.writer.transport.is_closing() for side in sides)
    await tasks.close()


def test_any_bytes_and_ends_in_a_tunnel() -> None:
    """uvloop raises RuntimeError from a write after the peer's reset, which is no OSError."""
    failures: list[BaseException] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for _ in range(56):
            runner.run(tunnel([("say", 60_000), ("reset", 1), *[("say", 60_000)] * 6], failures))

        @EXAMPLES
        @given(
            st.lists(
                st.tuples(st.sampled_from(["say", "say", "reset", "close", "shut"]), st.integers(1, 100_000)),
                max_size=12,
            )
        )
        def examine(steps: list[tuple[str, int]]) -> None:
            runner.run(tunnel(steps, failures))
            assert failures == []

        examine()


# --- a subscriber that fails all the same ---


async def test_a_service_that_makes_a_part_fail_is_left_out_there_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_node() as node:
        read = node.site._read

        def failing(id_: str) -> bool:
            found = read(id_)
            if id_ == "bad1" and id_ in node.site._snapshot.services:
                raise RuntimeError("a fault of ours")
            return found

        monkeypatch.setattr(node.site, "_read", failing)
        services = {f"bad{n}": bad_service({}, n) for n in range(9)}
        node.store.publish(Change(services=services))
        await node.settle()
        await node.answers()
        assert ERRORS.counts == {"subscriber http": 1}
        assert [one.quarantined for one in node.store.subscriptions if one.quarantined] == [
            (("services", "bad1"),)
        ]
        assert any("bad1" in one and "http" in one for one in ERRORS.problems())
        node.store.publish(Change(services={"bad1": None}))
        await node.settle()
        await node.answers()
        assert not any("bad1" in one for one in ERRORS.problems())


# --- queries and upstreams ---


async def test_a_fault_at_one_query_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered with SERVFAIL, at whatever step it fails, and the next one as ever."""
    ERRORS.clear()
    async with upstream(say("10.9.9.9")) as server:
        asking = Asking(snapshot(), str(server))
        for step in ("_answer", "_told"):
            broken = asking.resolver if step == "_answer" else asking.resolver._forwarding
            original = getattr(broken, step)
            left = iter([True])

            def failing(*args: Any, original: Any = original, left: Any = left, **named: Any) -> Any:
                if next(left, False):
                    raise RuntimeError("a fault of ours")
                return original(*args, **named)

            monkeypatch.setattr(broken, step, failing)
            reply = await asking.ask(question(f"{step.strip('_')}.example"))
            assert reply is not None
            assert rcode(reply) == 2  # SERVFAIL
            assert await asking.shown("web") == ["10.1.0.2"]
            assert await asking.shown(f"again-{step.strip('_')}.example") == ["10.9.9.9"]
        assert ERRORS.counts == {"answering a query": 1, "passing a reply on": 1}
        await asking.tasks.close()
