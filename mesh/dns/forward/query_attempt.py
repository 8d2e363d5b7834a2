"""One try at one server: asked in the way that suits it, until there is a reply that matches.

UDP first, or what the client uses; TCP where a reply was truncated, so that one whole reply serves
everybody, or where somebody floods us with forgeries. A server that changes the case of names, or knows no
EDNS, is asked again at once without, and so for an hour.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from secrets import randbits, token_bytes
from time import monotonic

from mesh.dns.forward.dot import SecureConnections
from mesh.dns.forward.loop_detection import InFlightSpellings
from mesh.dns.forward.query_builder import Received, UpstreamQuery, received
from mesh.dns.forward.route import DnsServer, UpstreamRoute
from mesh.dns.forward.server_health import ServerHealth
from mesh.dns.forward.transport import CaseChanged, Flooded, over_tcp, over_udp
from mesh.dns.wire import HEADER, Rcode
from mesh.errors import WireError

WITHOUT_EDNS = frozenset({Rcode.FORMERR, Rcode.NOTIMP})  # RFC 6891 7: what servers that know no EDNS say


@dataclass(frozen=True, slots=True)
class QueryTools:
    """What every try needs. `rejected` is told why a message was passed over."""

    secure: SecureConnections
    spellings: InFlightSpellings
    rejected: Callable[[str], None]
    mixed_case: bool = True


@dataclass(frozen=True, slots=True)
class Attempt:
    """`run` once. It waits as long as it is let, and raises OSError, KernelError or WireError."""

    means: QueryTools
    query: UpstreamQuery
    route: UpstreamRoute
    server: DnsServer
    health: ServerHealth

    async def run(self, tcp: bool) -> Received:
        tcp = tcp or self.route.manner.tcp
        got = await self._with_or_without_edns(tcp)
        if got.reply.truncated and not (tcp or self.server.tls_name):
            try:
                async with asyncio.timeout(self.route.manner.try_timeout):
                    return await self._once(tcp=True)
            except (OSError, WireError):  # no TCP there (or no way for it): the client may try for itself
                return got
        return got

    async def _with_or_without_edns(self, tcp: bool) -> Received:
        got = await self._in_any_case(tcp)
        if got.reply.rcode not in WITHOUT_EDNS or not self._edns:
            return got
        self.health.note_no_edns(self._now)
        return await self._in_any_case(tcp)

    async def _in_any_case(self, tcp: bool) -> Received:
        try:
            return await self._once(tcp)
        except CaseChanged:  # a forger would have to guess id and port once more
            self.health.note_case_change(self._now)
            return await self._once(tcp)
        except Flooded:
            return await self._once(tcp=True)

    async def _once(self, tcp: bool) -> Received:
        size = len(self.query.question)
        case = 0 if self._plain_case(tcp) else randbits(8 * size)
        message = self.query.message(token_bytes(2), case, self._edns)
        sent = message[HEADER.size : HEADER.size + size]
        with self.means.spellings.out(sent, case, self.route, self.server):
            if self.server.tls_name:
                reply = await self.means.secure.ask(self.server, message)
            elif tcp:
                reply = await over_tcp(message, self.server, self.route.sockets)
            else:
                reply = await over_udp(
                    message, self.server, self.route.sockets, self.means.rejected, exact=bool(case)
                )
        return received(self.query, reply)

    def _plain_case(self, tcp: bool) -> bool:
        if tcp or self.server.tls_name or self.query.signed:
            return True  # nobody can forge what goes over a connection, and what is signed stays as it is
        return not self.means.mixed_case or self.health.changes_case(self._now)

    @property
    def _edns(self) -> bool:
        return self.health.knows_edns(self._now)

    @property
    def _now(self) -> float:
        return monotonic()
