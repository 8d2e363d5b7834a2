"""Who orders, when, and what a failure means for the others. The authority is told what to say."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from mesh.acme import certificate_store as kept_module
from mesh.acme import issuer as issuer_module
from mesh.acme.certificate_store import AcmeStore
from mesh.acme.client import Prepare
from mesh.acme.issuer import Issuer
from mesh.acme.messages import AcmeAccount
from mesh.acme.schedule import Names
from mesh.errors import AccountGone, CertificateError
from mesh.internal_errors import ERRORS
from tests.acme.test_certificate_store import URL, pem
from tests.support.certificates import NOW
from tests.support.waiting import running, until

A, B, C = ("a.example",), ("b.example",), ("c.example",)


class Told:
    """`answers`: what becomes of the next orders; then all are issued."""

    def __init__(self, *answers: Exception | str) -> None:
        self.answers = list(answers)
        self.ordered: list[Names] = []
        self.accounts = 0
        self.no_account: Exception | None = None

    async def register(self, now: float) -> tuple[AcmeAccount, str]:
        if self.no_account is not None:
            raise self.no_account
        self.accounts += 1
        return AcmeAccount(f"acct/{self.accounts}", "{}", now), f"print{self.accounts}"

    async def order(self, account: AcmeAccount, names: Names, prepare: Prepare) -> str:
        self.ordered.append(names)
        await prepare([])
        answer = self.answers.pop(0) if self.answers else pem(*names)
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self, folder: Path, authority: Told, *wanted: Names) -> None:
        self.authority = authority
        self.kept = AcmeStore(str(folder), URL)
        self.wanted = list(wanted)
        self.given: set[Names] = set()
        self.leads = True
        self.now = NOW.timestamp()
        self.prepared = 0
        self.ordered_before: list[Names] | None = None  # the others have said what they have
        self.issuer = Issuer(
            authority,  # type: ignore[arg-type]
            self.kept,
            lambda: self.wanted,
            lambda names: names in self.given,
            lambda: self.leads,
            self._settled,
            self._prepare,
            lambda: self.now,
        )

    async def _settled(self) -> None:
        self.ordered_before = list(self.authority.ordered)

    async def _prepare(self, _proofs: Sequence[object]) -> None:
        self.prepared += 1

    async def comes_to(self, look: Callable[[], object], what: str) -> None:
        async with running(self.issuer.run()):
            await until(look, what)

    def again(self) -> int:
        """How many have failed and are tried again."""
        return sum("again in" in message for message in self.problems().values())

    def problems(self) -> dict[str, str]:
        return {one.key: one.message for one in self.issuer.problems()}


async def test_one_after_the_other(tmp_path: Path) -> None:
    world = World(tmp_path, Told(), B, A)
    await world.comes_to(lambda: len(world.kept.have()) == 2, "both are there")
    assert world.authority.ordered == [A, B]
    assert (world.authority.accounts, world.prepared) == (1, 2)
    assert world.ordered_before == []
    assert world.problems() == {}


async def test_who_does_not_lead_orders_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuer_module, "LOOK_SECONDS", 0.02)
    world = World(tmp_path, Told(), A)
    world.leads = False
    async with running(world.issuer.run()):
        for _ in range(5):
            await asyncio.sleep(0)
        assert world.authority.ordered == []
        assert "leading manager" in world.problems()["a.example"]
        world.leads = True  # it is looked at now and then
        await until(lambda: list(world.kept.have()) == [A], "it orders when it leads")


async def test_what_has_a_file_is_not_ordered(tmp_path: Path) -> None:
    world = World(tmp_path, Told(), A, B)
    world.given = {A}
    await world.comes_to(lambda: world.kept.have(), "the other one")
    assert world.authority.ordered == [B]


async def test_a_name_that_is_refused_stops_nobody_else(tmp_path: Path) -> None:
    world = World(tmp_path, Told(CertificateError("says no")), A, B)
    await world.comes_to(lambda: world.issuer.orders["issued"], "the other one is there")
    assert list(world.kept.have()) == [B]
    assert world.problems() == {"a.example": f"no certificate: {URL} says no; again in 5 minutes"}
    assert world.issuer.orders == {"failed": 1, "issued": 1}


async def test_an_authority_that_is_away_is_asked_once(tmp_path: Path) -> None:
    world = World(tmp_path, Told(CertificateError("does not answer", general=True)), A, B, C)
    await world.comes_to(lambda: world.again() == 3, "all wait")
    assert world.authority.ordered == [A]
    assert set(world.problems().values()) == {f"no certificate: {URL} does not answer; again in 5 minutes"}
    world.now += 301
    await world.comes_to(lambda: len(world.kept.have()) == 3, "all are there")


async def test_no_account_is_everybodys_failure(tmp_path: Path) -> None:
    world = World(tmp_path, Told(), A, B)
    world.authority.no_account = CertificateError("wants an address")
    await world.comes_to(lambda: world.again() == 2, "both wait")
    assert world.issuer.orders == {"failed": 1}
    assert "makes no account: wants an address" in world.problems()["b.example"]


async def test_an_account_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    world = World(tmp_path, Told(AccountGone("unknown")), A)
    await world.comes_to(lambda: world.kept.have(), "it is there")
    assert world.authority.accounts == 2
    assert world.kept.thumbprint == "print2"


@pytest.mark.parametrize("wrong", ["nothing", pem("b.example"), pem("a.example", days=-1)])
async def test_what_is_issued_wrongly_is_not_taken(tmp_path: Path, wrong: str) -> None:
    world = World(tmp_path, Told(wrong), A)
    await world.comes_to(lambda: world.issuer.orders["failed"], "it is a failure")
    assert world.kept.have() == {}
    assert "has issued" in world.problems()["a.example"]


async def test_an_expired_one_is_told_of(tmp_path: Path) -> None:
    world = World(tmp_path, Told(), A)
    world.leads = False
    await world.kept.put(pem("a.example", days=1))
    assert world.problems() == {}
    world.now += 2 * 86400
    assert "expired" in world.problems()["a.example"]


async def test_what_fails_in_general_for_one_stack_is_tried_for_another(tmp_path: Path) -> None:
    """It may be its names that the authority cannot bear."""
    world = World(tmp_path, Told(CertificateError("serverInternal", general=True)), A, B, C)
    world.issuer._owner = world.issuer._schedule._owner = lambda names: "good" if names == C else "evil"
    await world.comes_to(lambda: C in world.kept.have(), "the other stack's is issued")
    assert world.authority.ordered == [A, C]


async def test_a_fault_of_ours_is_tried_again_as_late_as_any_failure(tmp_path: Path) -> None:
    ERRORS.clear()
    world = World(tmp_path, Told(RuntimeError("of ours")), A, B)
    await world.comes_to(lambda: list(world.kept.have()) == [B], "the other one is there")
    assert "a fault of ours, see the log; again in 5 minutes" in world.problems()["a.example"]
    assert ERRORS.counts == {"certificate orders": 1}
    ERRORS.clear()


async def test_what_is_more_than_is_kept_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_module, "CERTIFICATES_MAX", 1)
    world = World(tmp_path, Told(), A, B)
    await world.comes_to(lambda: world.again() == 1, "the second one waits")
    assert "one that is not kept: more than 1 certificates; again in" in world.problems()["b.example"]
