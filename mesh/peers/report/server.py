"""Reports of the nodes, as managers take them: one small PUT at a time from each node.

A report says all that there is to say of its node and takes the place of the one before, so nothing has to be
kept in order, and whoever sends the next one has seen the answer to the last. The answer is given when the
report is in force, and no sooner than a pause in proportion to the work it made: no node, however broken, can
keep a manager busy with its reports.
"""

import asyncio
import time
from collections.abc import Callable

from aiohttp import web

from mesh.errors import DiscoveryError
from mesh.peers.report.codec import NodeReport, decode_report

SIGNS_PATH = "/v1/signs"
READ_SECONDS = 2.0  # for a whole report to arrive
PACE_SECONDS = 0.005  # between two reports of a node, at least
WORK_SHARE = 10  # times as long as the last one took, at least
PAUSE_MAX = 1.0  # seconds; the node waits for its answer


class SignServer:
    """`take` gets the node's id and its report; `refuse` counts what is not taken, by reason."""

    def __init__(self, take: Callable[[str, NodeReport], None], refuse: Callable[[str], None]) -> None:
        self._take = take
        self._refuse = refuse
        self._busy: set[str] = set()  # nodes whose report is being taken

    async def serve(self, node: str, request: web.Request) -> web.Response:
        """`node` has been proven by its certificate. Raises the refusal."""
        if node in self._busy:
            self._refuse("two reports at once")
            raise web.HTTPTooManyRequests
        self._busy.add(node)
        try:
            report = await self._read(request)
            started = time.perf_counter()
            self._take(node, report)
            took = time.perf_counter() - started
            await asyncio.sleep(min(PAUSE_MAX, max(PACE_SECONDS, took * WORK_SHARE)))
        finally:
            self._busy.discard(node)
        return web.Response(status=204)

    async def _read(self, request: web.Request) -> NodeReport:
        try:
            async with asyncio.timeout(READ_SECONDS):
                return decode_report(await request.read())
        except web.HTTPRequestEntityTooLarge:
            self._refuse("a report that is too long")
            raise
        except TimeoutError as error:
            self._refuse("too slow")
            raise web.HTTPRequestTimeout from error
        except DiscoveryError as error:
            self._refuse("a report that is not understood")
            raise web.HTTPBadRequest(text=str(error)) from error
