"""Who is probed, and when results change a verdict."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.balance.health_state import FALL, RISE, Pulse, Result
from mesh.catalog.model import Attachment, Container, Network, Port, Protocol, Service
from mesh.discovery.probe import Probe, probes

INGRESS = Network("in", "ingress", ingress=True)
BOX = Container("c", "web.1.t", "/ns", (Attachment("n", "10.9.0.5"), Attachment("in", "10.0.0.5")), task="t")


def web(**labels: str) -> Service:
    named = {f"mesh.port.80.{key}": text for key, text in labels.items()}
    return Service("s", "web", ports=(Port(80, 8080), Port(80, 8080, Protocol.UDP)), labels=named)


def test_a_label_asks_for_it() -> None:
    assert list(probes(BOX, web(), INGRESS)) == []
    (tcp,) = probes(BOX, web(health="tcp"), INGRESS)
    assert tcp == Probe("t", "s", "web", "/ns", "10.0.0.5", 8080)
    (http,) = probes(BOX, web(health="http:/ready?x=1", health_interval="1s"), None)
    assert (http.path, http.interval, http.timeout, http.address) == ("/ready?x=1", 1.0, 1.0, "10.9.0.5")


@pytest.mark.parametrize("box", [Container("c", "c", "/ns"), Container("c", "c", "", task="t")])
def test_what_cannot_be_probed_is_not(box: Container) -> None:
    assert list(probes(box, web(health="tcp"), INGRESS)) == []
    assert list(probes(BOX, None, INGRESS)) == []


def test_a_new_task_needs_one_success_and_a_fallen_one_two() -> None:
    pulse = Pulse(well=False, new=True)
    assert not pulse.take(Result.REFUSED)
    assert pulse.take(Result.WELL)
    assert [pulse.take(Result.TIMEOUT) for _ in range(FALL)] == [False] * (FALL - 1) + [True]
    assert [pulse.take(Result.WELL) for _ in range(RISE)] == [False] * (RISE - 1) + [True]


@given(st.lists(st.sampled_from([Result.WELL, Result.REFUSED])))
def test_the_verdict_is_that_of_the_last_long_enough_row(results: list[Result]) -> None:
    pulse, expected = Pulse(well=True), True
    for result, row in groupby(results):
        length = len(list(row))
        for _ in range(length):
            pulse.take(result)
        if length >= (RISE if result is Result.WELL else FALL):
            expected = result is Result.WELL
    assert pulse.well == expected
