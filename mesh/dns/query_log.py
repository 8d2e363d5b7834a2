"""The query log: one line for every n-th query, who asked what and what came of it.

Sampling is by position, and positions are counted by the batch: what is not logged costs nothing, and the
share is exact over time. A second has `QUERY_LOG_PER_SECOND` lines at most; how many were left out is told
with the next one. Off unless `dns.query_log` says a share.
"""

import logging
from collections.abc import Callable

from dnslib import DNSError, DNSRecord

from mesh.dns.config import QUERY_LOG_ANSWERS, QUERY_LOG_PER_SECOND
from mesh.dns.scope import Scope
from mesh.dns.stats import OTHER, RCODES, TYPES

logger = logging.getLogger(__name__)


class QueryLog:
    """`share` of the queries, above 0 and up to 1, is logged."""

    def __init__(self, share: float, clock: Callable[[], float]) -> None:
        self._every = max(1, round(1 / share))
        self._clock = clock
        self._ahead = 0  # queries before the next one that is logged
        self._second = 0.0
        self._lines = self._left_out = 0

    def due(self, count: int) -> range:
        """Whose turn it is: positions among the next `count` queries."""
        positions = range(self._ahead, count, self._every)
        self._ahead = (positions[-1] + self._every if positions else self._ahead) - count
        return positions

    def write(self, scope: Scope, reply: bytes, source: str, seconds: float, tcp: bool) -> None:
        """A line for the query that got this reply."""
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._lines = now, 0
        if self._lines >= QUERY_LOG_PER_SECOND:
            self._left_out += 1
            return
        self._lines += 1
        fields = {
            "asker": scope.container[:12] or "node",
            **_read(reply),
            "source": source,
            "transport": "tcp" if tcp else "udp",
            "microseconds": round(seconds * 1e6),
            "one_in": self._every,
        }
        if self._left_out:
            fields["left_out"], self._left_out = self._left_out, 0
        logger.info("query", extra={"fields": fields})


def _read(reply: bytes) -> dict[str, object]:
    """What a reply says. One from outside may hold what dnslib cannot read; then header and no more."""
    rcode = RCODES.get(reply[3] & 0xF, OTHER)
    try:
        record = DNSRecord.parse(reply)
    except (DNSError, ValueError, LookupError):
        return {"name": "", "type": OTHER, "rcode": rcode, "answers": []}
    answers = [str(rr.rdata) for rr in record.rr[:QUERY_LOG_ANSWERS]]
    if more := len(record.rr) - len(answers):
        answers.append(f"and {more} more")
    name, qtype = (str(record.q.qname), TYPES.get(record.q.qtype, OTHER)) if record.questions else ("", OTHER)
    return {"name": name, "type": qtype, "rcode": rcode, "answers": answers}
