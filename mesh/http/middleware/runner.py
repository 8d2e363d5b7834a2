"""Steps carried out for an exchange: what they have to wait for, and what they put around its client."""

from collections.abc import Callable, Sequence

from mesh.http import limits
from mesh.http.config.model import Compress, ErrorPages, ForwardAuth
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.http.middleware.chain import NeedsAuthRequest, NeedsPasswordCheck, go_on
from mesh.http.middleware.compress import CompressFilter, understands_gzip
from mesh.http.middleware.error_pages import ErrorPageFilter
from mesh.http.middleware.forward_auth import judge, question
from mesh.http.password_queue import Comparison
from mesh.http.request_plan import RequestContext, RequestPlan, Step
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.external_client import ExternalClient, ExternalRequest
from mesh.http.upstream.service_lookup import ServiceLookup, ServiceUse
from mesh.http.upstream.service_registry import Targets
from mesh.http.upstream.subrequest import Subrequest
from mesh.internal_errors import ERRORS
from mesh.net.limits.semaphore import Semaphore, SharedRoom


class MiddlewareRunner:
    def __init__(
        self, core: HttpRuntime, targets: Targets, named: ServiceLookup, outside: ExternalClient | None
    ) -> None:
        self._core = core
        self._targets = targets
        self._named = named
        self._outside = outside
        self._compressing = Semaphore(limits.COMPRESSING_MAX)
        self._asides = SharedRoom(Semaphore(limits.ASIDES_MAX))

    def treat(
        self,
        owner: str,
        steps: Sequence[Step],
        asked: RequestContext,
        treatment: RequestPlan,
        exchange: Exchange,
    ) -> None:
        """All steps of a route of this service; where one has to wait, the rest follows."""
        try:
            self._treat(owner, steps, asked, treatment, exchange)
        except Exception as error:  # noqa: BLE001 - the boundary of a request: its client is told, its places free
            ERRORS.report("treating a request", error)
            treatment.refuse(HttpFault.INTERNAL, asked.request_id)
            exchange.go_on()

    def _treat(
        self,
        owner: str,
        steps: Sequence[Step],
        asked: RequestContext,
        treatment: RequestPlan,
        exchange: Exchange,
    ) -> None:
        def again() -> None:
            if exchange.waiting:  # the client is still there
                self.treat(owner, steps, asked, treatment, exchange)

        while True:
            try:
                go_on(steps, asked, treatment)
            except NeedsPasswordCheck as unverified:
                if self._compared(unverified, owner, asked, treatment, exchange, again):
                    exchange.waiting = True
                    return
                treatment.refuse(HttpFault.OVERLOADED, asked.request_id)
            except NeedsAuthRequest as unanswered:
                if not self._answered(unanswered.one, owner, asked, treatment, exchange, again):
                    exchange.waiting = True
                    return
                continue
            break
        for one in treatment.around:
            self._put_around(one, owner, asked, treatment, exchange)
        exchange.go_on()

    def _compared(
        self,
        unverified: NeedsPasswordCheck,
        owner: str,
        asked: RequestContext,
        treatment: RequestPlan,
        exchange: Exchange,
        later: Callable[[], None],
    ) -> bool:
        """Have the password compared, and call `later`. False: there is no room for it."""

        def refused() -> None:
            treatment.refuse(HttpFault.OVERLOADED, asked.request_id)
            later()

        comparison = Comparison(unverified.verify, later, refused)
        if not self._core.passwords.compare(comparison, owner, asked.request.client):
            return False
        treatment.at_end.append(lambda: self._core.passwords.drop(comparison))
        return True

    def _answered(
        self,
        one: ForwardAuth,
        owner: str,
        asked: RequestContext,
        treatment: RequestPlan,
        exchange: Exchange,
        later: Callable[[], None],
    ) -> bool:
        """Ask whether the request may go on. False: it is not known yet, and `later` is to be called."""
        lines = exchange.client.forwarded(exchange.head)
        waits = False

        def told(aside: Subrequest | ExternalRequest) -> None:
            try:
                judge(one, asked, treatment, lines, aside.head, aside.body)
            except Exception as error:  # noqa: BLE001 - the boundary of a request: nobody is let in by it
                ERRORS.report("judging an answer", error)
                treatment.refuse(HttpFault.INTERNAL, asked.request_id)
            treatment.taken += 1
            if waits:
                later()

        asking: Subrequest | ExternalRequest
        target = None if one.tls else self._named.target(ServiceUse(owner, one.host, one.port, one.scope))
        method = exchange.method if one.keep_method else b"GET"
        shown = question(one, asked, treatment, lines)
        if target is not None:
            room = self._asides.share(owner)
            asking = Subrequest(self._core.deadlines, room, exchange.client.edge, asked.request_id, told)
            asking.ask(target, method, one.target.encode(), shown)
        elif one.abroad and self._outside is not None:
            asking = self._outside.ask(one.url, method.decode(), shown, told, owner)
        else:
            judge(one, asked, treatment, lines, None, b"")
            treatment.taken += 1
            return True
        treatment.at_end.append(asking.drop)
        waits = not asking.done
        return asking.done

    def _put_around(
        self,
        one: Compress | ErrorPages,
        owner: str,
        asked: RequestContext,
        treatment: RequestPlan,
        exchange: Exchange,
    ) -> None:
        if isinstance(one, ErrorPages):
            target = self._targets.get(one.service)
            room = self._asides.share(owner)
            exchange.client = ErrorPageFilter(exchange, one, target, self._core.deadlines, room)
            return
        wanted = understands_gzip(asked.request.header("accept-encoding"))
        head_only = exchange.method == b"HEAD"
        around = CompressFilter(exchange.client, one, wanted, head_only, self._compressing)
        treatment.at_end.append(around.ended)
        exchange.client = around
