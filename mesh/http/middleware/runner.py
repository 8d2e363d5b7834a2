"""Runs the handlers of a route for an exchange.

The runner does what they have to wait for, and puts their response filters around the client.
"""

from collections.abc import Callable, Sequence

from mesh.http import limits
from mesh.http.codec.h1_head import ResponseHead
from mesh.http.config.model import Middleware
from mesh.http.exchange import Exchange
from mesh.http.faults import HttpFault
from mesh.http.middleware.chain import run_handlers
from mesh.http.middleware.kind import AskService
from mesh.http.middleware.kinds.basic_auth import NeedsPasswordCheck
from mesh.http.middleware.kinds.forward_auth import (
    ForwardAuth,
    NeedsAuthRequest,
    apply_verdict,
    auth_request_fields,
)
from mesh.http.middleware.table import kind_of
from mesh.http.password_queue import Comparison
from mesh.http.request_plan import MiddlewareHandler, RequestContext, RequestPlan
from mesh.http.runtime import HttpRuntime
from mesh.http.upstream.external_client import ExternalClient, ExternalRequest
from mesh.http.upstream.service_lookup import ServiceLookup, ServiceUse
from mesh.http.upstream.service_registry import Targets
from mesh.http.upstream.subrequest import Subrequest
from mesh.internal_errors import ERRORS
from mesh.net.limits.semaphore import Semaphore, SharedRoom


class MiddlewareRunner:
    """One for all routes. It has what handlers and filters need of the process."""

    def __init__(
        self,
        runtime: HttpRuntime,
        targets: Targets,
        lookup: ServiceLookup,
        external: ExternalClient | None,
    ) -> None:
        """`external`: asks authorization services outside the Swarm; None: nobody there is asked."""
        self.runtime = runtime
        self.targets = targets
        self.lookup = lookup
        self.external = external
        self.compressors = Semaphore(limits.COMPRESSING_MAX)
        self.subrequests = SharedRoom(Semaphore(limits.ASIDES_MAX))

    def run(
        self,
        owner: str,
        handlers: Sequence[MiddlewareHandler],
        context: RequestContext,
        plan: RequestPlan,
        exchange: Exchange,
    ) -> None:
        """Run all handlers of a route of this Swarm service, now or as far as one has to wait; then resume
        the exchange. Never raises."""
        _Run(self, owner, handlers, context, plan, exchange).start()


class _Run:
    """The handlers of one request."""

    __slots__ = ("_context", "_exchange", "_handlers", "_owner", "_plan", "_runner")

    def __init__(
        self,
        runner: MiddlewareRunner,
        owner: str,
        handlers: Sequence[MiddlewareHandler],
        context: RequestContext,
        plan: RequestPlan,
        exchange: Exchange,
    ) -> None:
        self._runner = runner
        self._owner = owner
        self._handlers = handlers
        self._context = context
        self._plan = plan
        self._exchange = exchange

    def start(self) -> None:
        try:
            if self._run():
                for one in self._plan.filters:
                    self._add_filter(one)
                self._exchange.go_on()
        except Exception as error:  # noqa: BLE001 - the boundary of a request: its client is answered, its places are free
            ERRORS.report("running the middlewares of a request", error)
            self._plan.refuse(HttpFault.INTERNAL, self._context.request_id)
            self._exchange.go_on()

    def _on_known(self) -> None:
        """What a handler waited for is known."""
        if self._exchange.waiting:  # the client is still there
            self.start()

    def _run(self) -> bool:
        """False: a handler waits, and `_on_known` will be called."""
        while True:
            try:
                run_handlers(self._handlers, self._context, self._plan)
            except NeedsPasswordCheck as needs:
                if self._compare(needs):
                    self._exchange.waiting = True
                    return False
                self._plan.refuse(HttpFault.OVERLOADED, self._context.request_id)
            except NeedsAuthRequest as needs:
                if not self._ask(needs.configured):
                    self._exchange.waiting = True
                    return False
                continue
            return True

    def _add_filter(self, configured: Middleware) -> None:
        build_filter = kind_of(configured).build_filter
        assert build_filter is not None
        context = _ExchangeFilters(self._runner, self._owner, self._context, self._plan, self._exchange)
        self._exchange.client = build_filter(configured, context)

    # --- a password ---

    def _compare(self, needs: NeedsPasswordCheck) -> bool:
        """Queue the comparison. False: the queue is full."""
        passwords = self._runner.runtime.passwords
        comparison = Comparison(needs.verify, self._on_known, self._on_password_refused)
        if not passwords.compare(comparison, self._owner, self._context.request.client):
            return False
        self._plan.on_end.append(lambda: passwords.drop(comparison))
        return True

    def _on_password_refused(self) -> None:
        """Others of this owner or client have displaced the comparison from the queue."""
        self._plan.refuse(HttpFault.OVERLOADED, self._context.request_id)
        self._on_known()

    # --- an authorization service ---

    def _ask(self, auth: ForwardAuth) -> bool:
        """Send the request to the authorization service. True: its answer is known already."""
        lines = self._exchange.client.forwarded(self._exchange.head)
        waits = False

        def on_verdict(reply: Subrequest | ExternalRequest) -> None:
            try:
                apply_verdict(auth, self._context, self._plan, lines, reply.head, reply.body)
            except Exception as error:  # noqa: BLE001 - the boundary of a request: it lets nobody in
                ERRORS.report("applying the answer of an authorization service", error)
                self._plan.refuse(HttpFault.INTERNAL, self._context.request_id)
            self._plan.next_handler += 1
            if waits:
                self._on_known()

        request = self._send(auth, lines, on_verdict)
        if request is None:
            apply_verdict(auth, self._context, self._plan, lines, None, b"")
            self._plan.next_handler += 1
            return True
        self._plan.on_end.append(request.drop)
        waits = not request.done
        return request.done

    def _send(
        self, auth: ForwardAuth, lines: bytes, on_verdict: Callable[[Subrequest | ExternalRequest], None]
    ) -> Subrequest | ExternalRequest | None:
        """None: there is no such service."""
        runner, exchange = self._runner, self._exchange
        use = ServiceUse(self._owner, auth.host, auth.port, auth.scope)
        target = None if auth.tls else runner.lookup.target(use)
        method = exchange.method if auth.preserve_method else b"GET"
        fields = auth_request_fields(auth, self._context, self._plan, lines)
        if target is not None:
            places = runner.subrequests.share(self._owner)
            request = Subrequest(
                runner.runtime.deadlines, places, exchange.client.edge, self._context.request_id, on_verdict
            )
            request.ask(target, method, auth.target.encode(), fields)
            return request
        if auth.may_be_external and runner.external is not None:
            return runner.external.ask(auth.url, method.decode(), fields, on_verdict, self._owner)
        return None


class _ExchangeFilters:
    """The `FilterContext` of one exchange."""

    def __init__(
        self,
        runner: MiddlewareRunner,
        owner: str,
        context: RequestContext,
        plan: RequestPlan,
        exchange: Exchange,
    ) -> None:
        self.client = exchange.client
        self.head = exchange.head
        self.request = context.request
        self.compressors = runner.compressors
        self.on_end = plan.on_end
        self.dismiss = exchange.dismiss
        self._runner = runner
        self._owner = owner
        self._exchange = exchange

    @property
    def response_fields(self) -> Sequence[tuple[str, str | None]]:
        return self._exchange.response_fields

    def find_service(self, key: str) -> AskService | None:
        target, exchange, client = self._runner.targets.get(key), self._exchange, self.client
        if target is None:
            return None

        def ask(path: bytes, lines: bytes, on_reply: Callable[[ResponseHead | None, bytes], None]) -> None:
            places = self._runner.subrequests.share(self._owner)
            request = Subrequest(
                self._runner.runtime.deadlines,
                places,
                client.edge,
                client.request_id,
                lambda reply: on_reply(reply.head, reply.body),
            )
            exchange.afterwards = request.drop
            request.ask(target, b"GET", path, lines)

        return ask
