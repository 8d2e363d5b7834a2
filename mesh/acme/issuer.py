"""The node that leads the Swarm orders what is due, one certificate after the other.

Two may believe that they lead for a moment; then a name has two certificates, and the later one is taken.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator

from mesh.acme.certificate_store import AcmeStore, read
from mesh.acme.client import Authority, Prepare
from mesh.acme.messages import AcmeAccount
from mesh.acme.schedule import CERTIFICATES_MAX, LATELY, Names, Schedule, nobodys, orderable, why_not
from mesh.errors import AccountGone, CertificateError, Problem
from mesh.internal_errors import ERRORS

LOOK_SECONDS = 15.0  # between two looks at what is due and who leads, at most
SOURCE = "http.acme"

logger = logging.getLogger(__name__)


class Issuer:
    """`run` it; call `news` when what is wanted, or who leads, may have changed.

    `given`: is there another certificate for all of these names? Then none is ordered. `settled` is awaited
    before the first order: others may have what we would order.
    """

    def __init__(
        self,
        authority: Authority,
        kept: AcmeStore,
        wanted: Callable[[], Collection[Names]],
        given: Callable[[Names], bool],
        leads: Callable[[], bool],
        settled: Callable[[], Awaitable[None]],
        prepare: Prepare,
        clock: Callable[[], float] = time.time,
        owner: Callable[[Names], str] = nobodys,
    ) -> None:
        """`owner`: the stack whose a certificate is."""
        self._authority = authority
        self._kept = kept
        self._wanted = wanted
        self._given = given
        self._leads = leads
        self._settled = settled
        self._prepare = prepare
        self._clock = clock
        self._owner = owner
        self._schedule = Schedule(owner)
        self._news = asyncio.Event()
        self.orders: Counter[str] = Counter()  # result → orders

    def news(self) -> None:
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._settled()
        while True:
            self._news.clear()
            await self._round()
            await self._until_due()

    async def _round(self) -> None:
        while self._leads():
            due = self._schedule.due(self._missing(), self._kept.have(), self._clock())
            if not due:
                return
            failure = await self._order(due[0])
            if failure is not None and failure.general:
                # They are not asked for only to hear the same; others' are, for it may be these names' fault.
                for names in (one for one in due[1:] if self._owner(one) == self._owner(due[0])):
                    self._schedule.failed(names, str(failure), self._clock())

    def _missing(self) -> list[Names]:
        return [names for names in self._wanted() if not self._given(names)]

    async def _until_due(self) -> None:
        wait = LOOK_SECONDS
        if self._leads():
            at = self._schedule.next(self._missing(), self._kept.have())
            wait = min(wait, max(0.0, at - self._clock())) if at is not None else wait
        try:
            async with asyncio.timeout(wait):
                await self._news.wait()
        except TimeoutError:
            return

    async def _order(self, names: Names) -> CertificateError | None:
        """What went wrong, if anything did."""
        shown = ", ".join(names)
        self._schedule.ordered(names, self._clock())
        try:
            await self._take(await self._ordered(names))
        except CertificateError as error:
            return self._failed(names, error)
        except Exception as error:  # noqa: BLE001 - the boundary of an order: the others are ordered, and it later
            ERRORS.report("certificate orders", error, effect=f"no certificate for {shown}")
            return self._failed(names, CertificateError("was not understood: a fault of ours, see the log"))
        self._schedule.done(names)
        self.orders["issued"] += 1
        logger.info("a certificate for %s was issued", shown)
        return None

    def _failed(self, names: Names, error: CertificateError) -> CertificateError:
        """It is tried again later."""
        self._schedule.failed(names, str(error), self._clock())
        self.orders["failed"] += 1
        logger.error("no certificate for %s: %s %s", ", ".join(names), self._kept.directory, error)
        return error

    async def _take(self, pem: str) -> None:
        try:
            await self._kept.put(pem)
        except ValueError as error:
            raise CertificateError(f"has issued one that is not kept: {error}") from error

    async def _ordered(self, names: Names) -> str:
        account = self._kept.account
        if account is None:
            account = await self._register()
        try:
            pem = await self._authority.order(account, names, self._prepare)
        except AccountGone:
            logger.warning("%s does not know our account: a new one is made", self._kept.directory)
            pem = await self._authority.order(await self._register(), names, self._prepare)
        try:
            found, life = read(pem)
        except ValueError as error:
            raise CertificateError(f"has issued what cannot be used: {error}") from error
        if found != names or life.renewal <= self._clock():
            raise CertificateError(
                f"has issued a certificate of {', '.join(found)} that is not what was asked"
            )
        return pem

    async def _register(self) -> AcmeAccount:
        try:
            account, thumbprint = await self._authority.register(self._clock())
        except CertificateError as error:
            raise CertificateError(f"makes no account: {error}", general=True) from error
        await self._kept.set_account(account, thumbprint)
        return account

    def problems(self) -> Iterator[Problem]:
        if self._kept.fault:
            yield Problem(str(self._kept.folder), "", self._kept.fault)
        have, now, failures = self._kept.have(), self._clock(), self._schedule.failures()
        missing = self._missing()
        looked_after = set(orderable(missing, self._owner))
        for names in sorted(missing):
            shown = ", ".join(names)
            if why := why_not(names):
                yield Problem(SOURCE, shown, f"no certificate: {why}")
            elif names not in looked_after:
                why = f"{CERTIFICATES_MAX} are looked after, as many of each stack as there is room for"
                yield Problem(SOURCE, shown, f"no certificate: {why}; it is one of {self._whose(names)}")
            elif self._leads() and names in failures:
                one = failures[names]
                what = "not renewed" if names in have else "no certificate"
                minutes = max(0.0, one.again - now) / 60
                message = f"{what}: {self._kept.directory} {one.why}; again in {minutes:.0f} minutes"
                yield Problem(SOURCE, shown, message)
            elif names not in have:
                who = "it is being ordered" if self._leads() else "the leading manager's sidecar orders it"
                if self._leads() and self._schedule.waits_for_its_turn(names, missing):
                    hours = LATELY / 3600
                    who = f"{self._whose(names)} has had its share of orders in {hours:.0f} hours; it waits"
                yield Problem(SOURCE, shown, f"no certificate yet: {who}")
            elif have[names].ends <= now:
                yield Problem(SOURCE, shown, "the certificate has expired and was not renewed")

    def _whose(self, names: Names) -> str:
        owner = self._owner(names)
        return f"stack {owner}" if owner else "the only stack"
