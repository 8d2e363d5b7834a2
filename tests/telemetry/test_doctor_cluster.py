"""Judgements about Docker, other nodes and sidecars."""

from collections.abc import Callable

import pytest

from mesh.telemetry import doctor_cluster as cluster
from mesh.telemetry.doctor import Check, Verdict
from mesh.telemetry.doctor_cluster import EngineSeen, Peer, SidecarSeen

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
DAY = 86_400.0
MANAGER = Peer("m", True, gossip="", control="", feed="", version="1", skew=0.0)
WORKER = Peer("w", gossip="", version="1", skew=0.0)
DOWN = Peer("d", True, down=True)
DEAF = Peer("x", True, gossip="no answer from 10.0.0.9:7946", control="refused", feed="refused")


def sidecar(**changed: object) -> SidecarSeen:
    return SidecarSeen(**{"connected": True, "age": 0.5, "role": "worker", "following": "m", **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("judge", "verdict", "says"),
    [
        (lambda: cluster.engine(EngineSeen("20.10.24+dfsg1", "active", True)), OK, "20.10.24+dfsg1, manager"),
        (lambda: cluster.engine(EngineSeen("26.1.5", "active")), OK, "worker"),
        (lambda: cluster.engine(EngineSeen("19.03.1", "active")), WARN, "19.03.1"),
        (lambda: cluster.engine(EngineSeen("dev", "active")), OK, "dev"),
        (lambda: cluster.engine(EngineSeen("26.1.5", "inactive")), FAIL, "in no Swarm (state: inactive)"),
        (lambda: cluster.no_engine("no socket"), FAIL, "no socket"),
        (lambda: cluster.certificates("swarm-worker", 60 * DAY), OK, "valid for 60 days"),
        (lambda: cluster.certificates("swarm-worker", 2 * DAY), WARN, "2.0 days"),
        (lambda: cluster.certificates("swarm-worker", -DAY), FAIL, "expired 1.0 days ago"),
        (lambda: cluster.no_certificate("locked"), FAIL, "locked"),
        # other nodes
        (lambda: cluster.gossip([MANAGER, WORKER, DOWN]), OK, "reached: m, w"),
        (lambda: cluster.gossip([]), OK, "no other node"),
        (lambda: cluster.gossip([MANAGER, DEAF]), FAIL, "1 of 2 not reached: x: no answer"),
        (lambda: cluster.control([MANAGER, WORKER, DOWN]), OK, "reached: m"),
        (lambda: cluster.control([WORKER]), OK, "no other manager"),
        (lambda: cluster.control([MANAGER, DEAF]), FAIL, "x: refused"),
        (lambda: cluster.feed_ports([MANAGER], 9182), OK, "reached: m"),
        (lambda: cluster.feed_ports([DEAF], 9182), FAIL, "1 of 1"),
        (lambda: cluster.versions("1", [MANAGER, WORKER, DOWN]), OK, "version 1, as on 2 other nodes"),
        (lambda: cluster.versions("2", [MANAGER]), WARN, "here 2, but m 1"),
        (lambda: cluster.versions("1", [MANAGER, DEAF]), WARN, "none answers on x"),
        (lambda: cluster.clocks([DEAF]), OK, "no other sidecar"),
        (lambda: cluster.clocks([MANAGER, WORKER]), OK, "alike on 2"),
        (lambda: cluster.clocks([MANAGER, Peer("w", skew=-6.0)]), WARN, "w differs by 6 s"),
        (lambda: cluster.clocks([MANAGER, Peer("w", skew=301.0)]), FAIL, "certificates"),
        # the sidecar
        (lambda: cluster.NO_SIDECAR, WARN, "none answers here"),
        (lambda: cluster.catalogue(sidecar()), OK, "confirmed 0 s ago, following m"),
        (lambda: cluster.catalogue(sidecar(role="manager", following="", serving=True)), OK, "served"),
        (lambda: cluster.catalogue(sidecar(role="", following="")), OK, "confirmed"),
        (lambda: cluster.catalogue(sidecar(following="", error="refused")), FAIL, "refused"),
        (lambda: cluster.catalogue(sidecar(age=None, error="no socket")), FAIL, "never read: no socket"),
        (lambda: cluster.catalogue(sidecar(age=61.0)), WARN, "61 s"),
        (lambda: cluster.catalogue(sidecar(connected=False, error="gone")), WARN, "gone"),
        (lambda: cluster.capture(sidecar(captured=3)), OK, "3, and no fault"),
        (lambda: cluster.capture(sidecar(faults=("web.1: refused",))), FAIL, "web.1: refused"),
        (lambda: cluster.problems(sidecar()), OK, "no problem"),
        (lambda: cluster.problems(sidecar(problems=tuple("abcdefgh"))), WARN, "f; and 2 more"),
    ],
)
def test_judgement(judge: Callable[[], Check], verdict: Verdict, says: str) -> None:
    check = judge()
    assert (check.verdict, says in check.seen) == (verdict, True), check
    assert bool(check.remedy) == (verdict is not OK)
