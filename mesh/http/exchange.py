"""One request and its response, from a client's connection to an endpoint's and back; both sides' state.

The client's side (HTTP/1 connection or HTTP/2 stream) and the endpoint's know each other only through it:

    client ── begin, body, body_ended, client_room, gone ──▶ exchange ── send, pause, resume ──▶ upstream
    client ◀── respond, write, end, answer, hold_body ──────── exchange ◀── responded, payload, ended, broken

Until an endpoint has taken the head the body is held, so a failed connect costs nothing: the next endpoint is
tried. Once sent, a request goes out again only if nothing came back, its method may be repeated (RFC 9110
section 9.2.2) and its body is still here.
"""

import socket
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from mesh.http import limits
from mesh.http.codec.h1_head import RequestHead, ResponseHead
from mesh.http.codec.protected_fields import without_names
from mesh.http.codec.proxy_headers import changed_response, with_fields
from mesh.http.endpoint_pool import PooledEndpoint
from mesh.http.faults import HttpFault
from mesh.http.interfaces import Downstream, Upstream
from mesh.http.local_reply import LocalReply, changed_answer, error_answer
from mesh.http.request_plan import RequestPlan
from mesh.net.isolation import run

Fields = Sequence[tuple[str, str | None]]  # to be set; None: taken away

_REPEATED = (HttpFault.ENDPOINT_CLOSED, HttpFault.TRY_TIMEOUT)
IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))


class ExchangeService(Protocol):
    """What the exchange needs of the one who made it."""

    connect_timeout: float
    response_timeout: float
    repeats_late: bool  # who does not begin to answer in that time is given up, and another one tried
    attempts: int  # endpoints tried for one request

    def pick(self, exchange: "Exchange") -> PooledEndpoint | None:
        """The endpoint to try next, besides those tried."""
        ...

    def may_repeat(self, exchange: "Exchange") -> bool:
        """Send it once more, although an endpoint may have acted on it."""
        ...

    def connection(self, server: PooledEndpoint, exchange: "Exchange") -> Upstream: ...
    def socket(self) -> socket.socket: ...


class Exchange:
    __slots__ = (
        "_attempts",
        "_body_max",
        "_complete",
        "_connected",
        "_counted",
        "_held",
        "_over",
        "_replay",
        "_request_fields",
        "_service",
        "_trailers",
        "_treatment",
        "_upstream",
        "afterwards",
        "client",
        "fault",
        "head",
        "method",
        "received",
        "repeating",
        "response_fields",
        "response_timeout",
        "sent",
        "server",
        "settled",
        "source",
        "started",
        "status",
        "switching",
        "target",
        "tried",
        "waiting",
    )

    def __init__(
        self,
        client: Downstream,
        head: RequestHead,
        service: ExchangeService,
        over: Callable[["Exchange"], None],
        treatment: RequestPlan | None = None,
    ) -> None:
        self.client = client
        self.head = head
        self.method = head.method
        self.source = client.edge.client  # whose request it is
        self.target = head.target
        self._treatment = treatment
        self.waiting = False  # for the treatment to be complete: `go_on`
        self.afterwards: Callable[[], None] | None = None  # when the client, who still waits, leaves
        self._service = service
        self._over = over
        self._upstream: Upstream | None = None
        self._connected = False  # it has the head, and gets more of the body as that comes
        self._complete = False  # the client has sent all of the request
        self._trailers = b""
        self._held: list[bytes] = []  # of the body, until an endpoint takes it
        self._attempts = service.attempts
        self._body_max = 0
        self._request_fields: Fields = ()
        self.response_fields: Fields = ()
        self._replay: bytes | None = b""  # the whole body so far; None when it is too large to be sent again
        self.response_timeout = service.response_timeout
        self.server: PooledEndpoint | None = None
        self.tried: list[PooledEndpoint] = []
        self.repeating = False  # it was sent before
        self.status = 0
        self.fault: HttpFault | None = None
        self.switching = False
        self._counted = False  # that it is over
        self.settled = False  # the client is done with it, or has been told that nothing more comes
        self.received = 0  # bytes of the request's body
        self.sent = 0  # bytes of the response's body
        self.started = monotonic()

    def address_to(self, authority: str) -> None:
        """The endpoint gets this as Host, in place of what the client wrote."""
        others = [one for one in self._request_fields if one[0] != "Host"]
        self._request_fields = [*others, ("Host", authority)]

    def set_cookie(self, cookie: str) -> None:
        """With the response; of one name the last one counts."""
        name = cookie.partition("=")[0] + "="
        others = [
            one
            for one in self.response_fields
            if one[0] != "Set-Cookie" or one[1] is None or not one[1].startswith(name)
        ]
        self.response_fields = [*others, ("Set-Cookie", cookie)]

    # --- the request, as its endpoint gets it; `target` is its first line's ---

    def request_lines(self) -> bytes:
        lines = self.client.forwarded(self.head)
        return with_fields(lines, self._request_fields) if self._request_fields else lines

    @property
    def request_body(self) -> bytes | None:
        """None: it is not all there, or more than REPLAY_MAX."""
        return self._replay if self._complete else None

    # --- the client's side ---

    def begin(self, body: bytes, complete: bool, trailers: bytes = b"") -> None:
        self._complete = complete
        self._trailers = trailers
        if body:
            self.received = len(body)
            self._held.append(body)
            self._remember(body)
        if not complete:
            self.client.hold_body(True)
        if self.waiting:
            return
        if self._treatment is not None:
            self._treated(self._treatment)
        else:
            self._attempt()

    def go_on(self) -> None:
        """What the treatment waited for is known. Nothing, if the client has gone meanwhile."""
        if self.waiting and self._treatment is not None:
            self.waiting = False
            run(self._treated, self._treatment)

    def body(self, data: bytes, complete: bool) -> None:
        self.received += len(data)
        if self._body_max and self.received > self._body_max:
            self._give_up(HttpFault.BODY_TOO_LARGE)
            return
        self._complete = complete
        self._remember(data)
        upstream = self._upstream
        if upstream is None or not self._connected:
            self._held.append(data)
        elif not upstream.send(data, complete) and not complete:
            self.client.hold_body(True)

    def body_ended(self, trailers: bytes) -> None:
        """All was passed to `body` already."""
        self._complete = True
        self._trailers = trailers
        if self._upstream is not None and self._connected:
            self._upstream.send(b"", True, _without_fields(trailers, self._request_fields))

    def on_timeout(self) -> None:
        """All of it takes longer than it may. A tunnel has no such limit."""
        if self.switching:
            return
        self.waiting = False
        if self.server is not None and self._connected and self._complete and not self.status:
            self.server.backend.failed(self.server, HttpFault.TIMEOUT.reason)
        self._give_up(HttpFault.TIMEOUT)

    def client_room(self) -> None:
        if self._upstream is not None:
            self._upstream.resume()

    def client_ended(self) -> None:
        """After an upgrade: it has said all."""
        if self._upstream is not None:
            self._upstream.shut_request()

    def on_fault(self) -> None:
        """Something of ours has failed at it, on whichever side: everything is given back. A client that has
        not been told of a response to its end is cut off."""
        if self.settled:
            return
        self.settled = True
        self.fault, self.waiting = HttpFault.INTERNAL, False
        self._release()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            run(upstream.discard)
        if not self.status:
            self.status = HttpFault.INTERNAL.status
        run(self._count)
        run(self.client.cut)

    def give_up(self, fault: HttpFault) -> None:
        """For a reason of the client's side. It is told, if its response has not begun."""
        self.waiting = False
        self._give_up(fault)

    def gone(self) -> None:
        """The client takes no more, ever."""
        if self.afterwards is not None:
            self.afterwards()
        else:
            self._finish(HttpFault.CLIENT_GONE)
        self.settled = True

    def dismiss(self) -> None:
        """The rest of the response is not wanted; the client gets something else."""
        self._finish(None)
        self.settled = True

    # --- the endpoint's side ---

    @property
    def upgrades(self) -> bool:
        return bool(self.head.about.upgrade)

    def _attempt(self) -> None:
        service = self._service
        server = None
        if len(self.tried) < self._attempts:
            server = service.pick(self)
        if server is None:
            self._fail(self.fault or HttpFault.NO_ENDPOINT)
            return
        self.server = server
        self._connected = False
        self.tried.append(server)
        server.active += 1
        server.requests += 1
        if server.idle and len(self.tried) == 1:
            connection = server.idle.pop()
            self._upstream = connection
            connection.take(self)
            self.connected()
        else:
            self._upstream = service.connection(server, self)
            self._upstream.connect(service.socket, service.connect_timeout)

    def connected(self) -> None:
        upstream = self._upstream
        assert upstream is not None
        lines = self.request_lines()
        self._connected = True
        held, complete = self._held, self._complete
        trailers = self._trailers and _without_fields(self._trailers, self._request_fields)
        taken = upstream.begin(self.head, self.target, lines, held, complete, trailers)
        if held:
            held.clear()
        if taken and not complete:
            self.client.hold_body(False)

    def goes_by(self, upstream: Upstream) -> None:
        """The connection has turned out to be of another kind: that is asked instead."""
        self._upstream = upstream

    def not_connected(self, fault: HttpFault) -> None:
        """Nothing was sent: another endpoint may have it."""
        self._lose(fault)
        self._attempt()

    def upstream_room(self) -> None:
        self.client.hold_body(False)

    def interim(self, head: ResponseHead) -> None:
        self.client.interim(head)

    def responded(self, head: ResponseHead, length: int) -> None:
        self.status = head.status
        server = self.server
        assert server is not None
        server.backend.answered(server, self.started, head.status)
        if self.response_fields:
            head = changed_response(head, self.response_fields)
        self.client.respond(head, length)

    def whole(self, head: ResponseHead, body: bytes) -> None:
        """Begin, payload and end of a response in one; the connection is free already."""
        self.status = head.status
        self.sent = len(body)
        self._upstream = None
        # As `_release` and `_count`: nearly all responses come this way.
        server, self.server = self.server, None
        assert server is not None
        server.active -= 1
        server.backend.answered(server, self.started, head.status)
        self.fault = None
        self._counted = True
        self._over(self)
        if self._replay:
            self._drop_replay()
        if self.response_fields:
            head = changed_response(head, self.response_fields)
        self.client.whole(head, body)
        self.settled = True

    def switched(self, head: ResponseHead) -> None:
        self.status = head.status
        if self.server is not None:
            self.server.backend.answered(self.server, self.started, head.status)
        self.switching = True
        self._drop_replay()
        self.client.switch(head)

    def payload(self, data: bytes) -> None:
        self.sent += len(data)
        self.client.write(data)

    def pushed(self) -> bool:
        """What was read is sent. False: read no more for now."""
        return self.client.flush()

    def ended(self, trailers: bytes) -> None:
        self._upstream = None
        self.client.end(trailers and _without_fields(trailers, self.response_fields))
        self._finish(None)
        self.settled = True

    def broken(self, fault: HttpFault, *, unprocessed: bool = False) -> None:
        """The connection, or the stream, is no more. `unprocessed`: the endpoint says that it has not looked
        at the request."""
        upstream, self._upstream = self._upstream, None
        if self.status:
            self.client.cut()
            self._finish(fault)
            self.settled = True
            return
        reused = upstream is not None and upstream.reused
        if fault is HttpFault.RESPONSE_TIMEOUT and self._service.repeats_late:
            fault = HttpFault.TRY_TIMEOUT
        used_up = reused and fault is HttpFault.ENDPOINT_CLOSED
        server = self._lose(fault, count=not used_up and not unprocessed)
        if self._repeatable(fault, unprocessed, used_up) and (unprocessed or self._service.may_repeat(self)):
            if used_up:
                self.tried.pop()  # it only closed what it had not used for long
                server.forget_idle()
            if self._replay:
                self._held = [self._replay]
            self._attempt()
        else:
            self._fail(fault)

    # --- ends ---

    def _give_up(self, fault: HttpFault) -> None:
        if self.status:
            self.client.cut()
            self._finish(fault)
            self.settled = True
            return
        self._release()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.discard()
        self._fail(fault)

    def _repeatable(self, fault: HttpFault, unprocessed: bool, used_up: bool) -> bool:
        return (
            (unprocessed or (fault in _REPEATED and self.method in IDEMPOTENT))
            and (used_up or len(self.tried) < self._attempts)
            and self._replay is not None
            and not self.switching
        )

    def _lose(self, fault: HttpFault, count: bool = True) -> PooledEndpoint:
        server = self._release()
        assert server is not None
        self.fault = fault
        self._upstream = None
        if count:
            server.backend.failed(server, fault.reason)
        return server

    def _release(self) -> PooledEndpoint | None:
        """Nothing more is asked of the endpoint: its slot is free again."""
        server, self.server = self.server, None
        if server is not None:
            server.active -= 1
        return server

    def _count(self) -> None:
        """Once: it is over."""
        if not self._counted:
            self._counted = True
            self._over(self)
            if self._replay:
                self._drop_replay()

    def _fail(self, fault: HttpFault) -> None:
        self.fault = fault
        self.status = fault.status
        self._answer(error_answer(fault, self.client.request_id))

    def _answer(self, answer: LocalReply) -> None:
        if self.response_fields:
            answer = changed_answer(answer, self.response_fields)
        self.status = answer.status
        self._count()
        self.client.answer(answer)
        self.settled = True

    def _treated(self, treatment: RequestPlan) -> None:
        """What the route's middlewares have made of the request."""
        self.response_fields = treatment.response_fields
        if treatment.answer is not None:
            self.fault = treatment.fault
            self._answer(treatment.answer)
            return
        self._request_fields = treatment.request_fields
        query = f"?{treatment.query}" if treatment.query else ""
        self.target = f"{treatment.path}{query}".encode("latin-1")
        self._attempts = treatment.attempts or self._attempts
        self._body_max = treatment.body_max
        if self._body_max and max(self.head.length, self.received) > self._body_max:
            self._fail(HttpFault.BODY_TOO_LARGE)
            return
        self._attempt()

    def _finish(self, fault: HttpFault | None) -> None:
        self.fault = fault
        self.waiting = False
        self._release()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.discard()
        self._count()

    # --- the body ---

    def _remember(self, data: bytes) -> None:
        replay, account = self._replay, self.client.edge.account
        if replay is None:
            return
        size = len(replay) + len(data)
        if size <= limits.REPLAY_MAX and (account is None or account.take(len(data)) is None):
            self._replay = replay + data
        else:
            self._drop_replay()

    def _drop_replay(self) -> None:
        replay, self._replay = self._replay, None
        if replay and (account := self.client.edge.account) is not None:
            account.give_back(len(replay))


def _without_fields(trailers: bytes, fields: Fields) -> bytes:
    """What the route's middlewares set or take away in the head does not come after the body either."""
    if not trailers or not fields:
        return trailers
    return without_names(trailers, {name.encode() for name, _ in fields})
