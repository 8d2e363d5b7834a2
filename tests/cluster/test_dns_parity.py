"""Every answer is the one that Docker's own resolver gives to the same container, or a documented difference.

Docker's resolver still listens in each captured container, past our redirect. A world with every kind of name
is deployed once; then both resolvers of its containers are asked the same thousands of questions: every name
plainly, and what hypothesis makes up. What differs must be in `tests/support/dns_differences.py`.

`MESH_PARITY_SEED` and `MESH_PARITY_EXAMPLES` choose other questions and more of them.
"""

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.support.dns_asking import Asking
from tests.support.dns_corpus import malformed, plain_questions, questions, some_questions, witnesses
from tests.support.dns_differences import DIFFERENCES, Difference
from tests.support.dns_message import Labels
from tests.support.dns_parity import Pair, Parity, told
from tests.support.dns_world import Builder
from tests.support.swarm import NODES, Swarm, eventually

SEED = int(os.environ.get("MESH_PARITY_SEED", "20250823"))
EXAMPLES = int(os.environ.get("MESH_PARITY_EXAMPLES", "4000"))
SETTINGS = settings(
    max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)

AS_DOCKER = {
    "MESH_DNS_TTL": "600",
    "MESH_DNS_CACHE": "0",
    "MESH_DNS_SRV": "false",
    "MESH_DNS_ORDER": "shuffle",
    "MESH_DNS_SHARED_ALIAS": "union",
    "MESH_DNS_EMPTY_SERVICES": "forward",
    "MESH_DNS_OTHER_TYPES": "forward",
    "MESH_DNS_VIP_PTR": "false",
}


@pytest.fixture(scope="module")
def parity(lab: Swarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parity]:
    """The world, and a process in each asking container."""
    for node in NODES:
        eventually(lambda node=node: lab.ready(node), f"{node}'s sidecar is ready", 90)  # type: ignore[misc]
    builder = Builder(Swarm(), tmp_path_factory.mktemp("world"))
    try:
        world = builder.deploy()
        with Asking(world.askers) as asking:
            yield Parity(world, asking)
    finally:
        builder.remove()


@pytest.fixture(scope="module")
def known(parity: Parity) -> dict[str, list[Labels]]:
    pairs = list(plain_questions(parity.world))
    parity.ask(pairs)
    return parity.known(pairs)


def test_every_name_from_everywhere(parity: Parity) -> None:
    faults = parity.faults(plain_questions(parity.world))
    assert not faults, told(faults)


def test_any_question(parity: Parity, known: dict[str, list[Labels]]) -> None:
    """Two runs over the same examples: one to ask them all at once, one to judge (and shrink)."""
    strategy = questions(parity.world, known)
    pairs: list[Pair] = []

    @seed(SEED)
    @settings(SETTINGS, phases=(Phase.generate,))
    @given(strategy)
    def collect(pair: Pair) -> None:
        pairs.append(pair)

    @seed(SEED)
    @settings(SETTINGS, phases=(Phase.generate, Phase.shrink), print_blob=False)
    @given(strategy)
    def check(pair: Pair) -> None:
        fault = parity.confirmed(pair)
        assert fault is None, f"MESH_PARITY_SEED={SEED}\n{fault}"

    collect()
    parity.ask(pairs)
    check()


def test_what_is_no_proper_query(parity: Parity) -> None:
    faults = parity.faults(malformed())
    assert not faults, told(faults)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_each_documented_difference_is_there(parity: Parity, difference: Difference) -> None:
    """Else it is in the table, and in the manual, for nothing."""
    if not difference.of(parity.world):
        pytest.skip(f"not on {parity.world.engine}")
    pairs = witnesses(parity.world)[difference.name]
    parity.used.clear()
    faults = parity.faults(pairs)
    assert not faults, told(faults)
    assert parity.used[difference.name], (
        f"no difference any more: {[str(parity.case(pair)) for pair in pairs]}"
    )


def test_where_we_can_be_told_to_do_as_docker_does_we_do(lab: Swarm, parity: Parity) -> None:
    world = replace(parity.world, as_docker=True)
    try:
        lab.configure(**AS_DOCKER)
        with Asking(world.askers) as asking:
            faults = Parity(world, asking).faults((*plain_questions(world), *some_questions(world)))
        assert not faults, told(faults)
    finally:
        lab.configure(**dict.fromkeys(AS_DOCKER, ""))
