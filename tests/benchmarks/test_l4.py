"""What load programs print → samples → tables; and in real namespaces: every path leads to the tasks."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.failure import BenchmarkFailed
from benchmarks.l4 import contenders, programs
from benchmarks.l4.carrying import BULK_RELAY, WEB_KEPT, WEB_KERNEL, WEB_RELAY, WEB_VIP, catalogue
from benchmarks.l4.contenders import SHARED, Contender
from benchmarks.l4.loads import BULK, CONNECTIONS, MESSAGES, gigabytes, requests
from benchmarks.l4.memory import Held
from benchmarks.l4.memory import table as memory_table
from benchmarks.l4.report import paired, paths, relays
from benchmarks.l4.turns import Series
from benchmarks.l4.updates import Samples, one_less, service
from benchmarks.l4.updates import table as updates_table
from benchmarks.l4.world import TASKS, Wires, worlds
from benchmarks.measure import Role
from mesh.kernel.rulesets import container_vips
from mesh.labels.ports import Carrier, plan
from tests.net.lab import inside, needs_root

WRK = """\
Running 1s test @ http://10.98.0.60:80/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     3.67ms  561.08us   8.77ms   78.61%
  8123 requests in 1.02s, 1.05MB read
Requests/sec:   7963.72
"""


def test_wrk_says_how_many_replies_it_saw() -> None:
    assert requests(WRK) == 8123


@pytest.mark.parametrize(
    "report",
    [
        WRK + "  Socket errors: connect 0, read 3, write 0, timeout 0\n",
        WRK + "  Non-2xx or 3xx responses: 12\n",
        WRK.replace("8123", "0"),
        "unable to connect",
    ],
)
def test_what_is_fast_and_wrong_is_no_figure(report: str) -> None:
    with pytest.raises(BenchmarkFailed, match="good replies"):
        requests(report)


def test_iperf3_says_how_much_arrived() -> None:
    report = {"end": {"sum_sent": {"bytes": 3e9}, "sum_received": {"bytes": 2.5e9}}}
    assert gigabytes(json.dumps(report)) == 2.5


@pytest.mark.parametrize(
    ("report", "says"), [('{"error": "refused", "end": {}}', "refused"), ("", "JSON"), ("{}", "JSON")]
)
def test_iperf3_that_failed_is_no_figure(report: str, says: str) -> None:
    with pytest.raises(BenchmarkFailed, match=says):
        gigabytes(report)


def test_loads_say_what_is_to_be_done() -> None:
    assert " ".join(CONNECTIONS.command("a", 80, 1)) == (
        "wrk --threads 1 --connections 32 --duration 1s --header Connection: close http://a:80/"
    )
    assert "--header" not in MESSAGES.command("a", 80, 1)
    assert " ".join(BULK.command("a", 1, 2)) == "iperf3 --client a --port 1 --time 2 --json"


def test_rounds_are_compared_with_themselves() -> None:
    assert paired([10, 1, 6], [5, 1, 2]) == 2  # in the second one the machine was busy


OURS = Series("ours", Role.OURS, rate=[100.0, 200.0], own=[0.004, 0.004], whole=[0.006, 0.006])
PEER = Series("peer", Role.PEER, rate=[50.0, 100.0], own=[0.002, 0.002], whole=[0.003, 0.003])
WIRES = Series("direct", Role.FLOOR, rate=[400.0, 800.0], whole=[0.001, 0.001])


def test_relays_beside_ours() -> None:
    table = relays("t", CONNECTIONS, [OURS, PEER, WIRES])
    assert [list(row) for row in table.rows] == [
        ["ours", "150", "60%", "4,000.0 µs", "250", "1.00", "1.00", "6,000.0 µs"],
        ["peer", "75", "15%", "2,000.0 µs", "500", "0.50", "2.00", "3,000.0 µs"],
        ["direct", "600", "–", "–", "–", "–", "0.25", "1,000.0 µs"],
    ]
    assert table.document()["raw"][2]["relay_cpu_seconds_per_unit"] == []


def test_paths_beside_the_plain_wires() -> None:
    table = paths("t", BULK, [WIRES, OURS])
    assert list(table.rows) == [
        ("direct", "4800.00", "1,000.0 µs", "1.00", "1.00"),
        ("ours", "1200.00", "6,000.0 µs", "0.25", "6.00"),
    ]


def test_the_catalogue_has_every_path_that_is_measured() -> None:
    known = catalogue("/ns/box", "/ns/tasks")
    carriers = {one.port.published: one.carrier for one in plan(known.services["web"]).ports}
    assert carriers == {WEB_KERNEL: Carrier.KERNEL, WEB_KEPT: Carrier.KERNEL, WEB_RELAY: Carrier.PROXY}
    assert not any(plan(service).problems for service in known.services.values())
    assert BULK_RELAY in {port.published for port in known.services["bulk"].ports}
    assert container_vips(known.containers["box"], known)["web"].keys() == {WEB_VIP}


def test_peers_carry_the_same_ports(tmp_path: Path) -> None:
    plain, splicing, nginx = (one.argv for one in programs.RELAYS)
    for argv in (plain, splicing, nginx):
        text = Path(argv(tmp_path)[-1]).read_text()
        assert all(f"{address}:8080" in text for address in TASKS)
        assert ("option splice-auto" in text) == (argv is splicing)
        assert "5201" in text


@pytest.fixture
def wires() -> Iterator[Wires]:
    with worlds() as made:
        yield made


@pytest.mark.root
@needs_root
@pytest.mark.skipif(bool(programs.missing()), reason="make bench-l4 BENCH_ARGS=--install")
@pytest.mark.parametrize(
    "contender",
    [
        contenders.direct,
        contenders.bare,
        contenders.kernel,
        contenders.kept,
        contenders.direct_from_box,
        contenders.vip,
        contenders.relay,
        contenders.relay_of(2, "two"),
        *contenders.peers(),
        contenders.peer(programs.ON_TWO_CORES),
    ],
)
def test_every_path_leads_to_the_tasks(wires: Wires, contender: Contender) -> None:
    with contender(wires, SHARED) as running:
        for _ in range(len(TASKS)):
            assert (
                inside(running.client, "curl", "-s", "-m", "5", "http://{}:{}/".format(*running.web)) == "ok"
            )


def test_memory_beside_ours() -> None:
    found = [
        Held("ours", Role.OURS, 100, 3000.0, 2.0),
        Held("peer", Role.PEER, 100, 6000.0, 0.0),
        Held("ours kernel", Role.OURS, 100, None, 2.0),
    ]
    table = memory_table(100, found)
    assert list(table.rows) == [
        ("ours", "3,000", "1.00", "2.0"),
        ("peer", "6,000", "0.50", "0.0"),
        ("ours kernel", "–", "–", "2.0"),
    ]
    assert json.loads(json.dumps(table.document()))["raw"][2]["bytes"] is None


def test_updates_beside_the_fewest_services() -> None:
    few = Samples("VIPs", 10, through=[0.001], alone=[0.0005], program=[0.02])
    other = Samples("ports", 10, through=[0.003], alone=[0.0005], program=[0.02])
    many = Samples("VIPs", 1000, through=[0.002, 0.002, 0.004], alone=[0.001], program=[0.03])
    assert list(updates_table([few, other, many]).rows)[2] == (
        *("VIPs", "1,000", "2.00", "4.00", "2.00", "1.00", "30.00"),
    )


def test_a_task_that_ends_is_one_small_transaction() -> None:
    whole = service(7)
    assert len({address for task in whole.tasks for address in task.addresses.values()}) == 3
    assert [task.serving for task in one_less(whole).tasks] == [True, True, False]
