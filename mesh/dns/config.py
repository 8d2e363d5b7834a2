"""What an operator may set, and the limits that nobody needs to."""

from dataclasses import dataclass

ANSWER_TTL = 5  # seconds; Docker's 600 outlive the tasks they name
CACHED_REPLIES = 10_000  # replies, a rotation of n counting as n
RESOLV_CONF = "/etc/resolv.conf"

QUERY_MAX = 4096  # bytes of a query over TCP; EDNS queries with every option in use stay far below
PLAIN_UDP = 512  # bytes of a UDP reply to a client that named no size (RFC 1035 4.2.1)
UDP_REPLY_MAX = 1232  # bytes, whatever EDNS asks for: crosses an overlay unfragmented (DNS flag day 2020)
TCP_REPLY_MAX = 65_535  # the length prefix ends there

ROTATIONS = 64  # ready-made orders of one answer; larger sets are built anew for every query
CACHED_REPLY_MAX = 4096  # bytes; larger replies are rare and would make the cache's memory unbounded
CACHED_TTL_MAX = 3600  # seconds; a forwarded record is asked for again after that at the latest
CACHED_NEGATIVE_TTL_MAX = 60  # seconds; RFC 2308 allows hours, people who just created a name do not

UPSTREAMS_MAX = 3  # servers of a resolv.conf that are used, as libc and Docker do
FORWARD_TRIES = 3  # per question, over all servers: 3 × 1.5 s end before a stub resolver's usual 5 s do
FORWARD_TRY_TIMEOUT = 1.5  # seconds
FORWARDS_MAX = 1024  # questions under way, Docker's number; more are REFUSED
FORWARD_WAITERS_MAX = 4096  # queries waiting for them, all together; more are REFUSED
SERVER_REST = 5.0  # seconds that a failed server comes after the others
RESOLV_CONF_CHECK = 1.0  # seconds between two looks at the file
RESOLV_TIMEOUT_MAX = 30  # seconds of `options timeout`, libc's own limit
RESOLV_ATTEMPTS_MAX = 5  # rounds of `options attempts`, libc's own limit

UDP_BATCH = 64  # datagrams per wake-up, so that no socket starves the others
UDP_SLOT = 1280  # bytes of a datagram read, more than any query has; larger replies are sent by themselves
PREFETCH_SHARE = 0.1  # of a forwarded reply's life: who asks in the last tenth has it fetched anew
SOURCES_MAX = 4096  # source addresses whose scope is remembered by an explicit endpoint
TCP_CONNECTIONS_MAX = 128  # per endpoint; more are closed at once
TCP_PIPELINE_MAX = 64  # queries of one connection that may wait for an upstream; then reading pauses
TCP_IDLE = 10.0  # seconds for the next query to arrive, and for a reply to be taken

QUERY_LOG_PER_SECOND = 200  # lines; each costs about 0.2 ms
QUERY_LOG_ANSWERS = 8  # records shown of one reply


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """`upstreams` are `ADDR` or `ADDR:PORT`; empty: those of `resolv_conf`, followed as it changes."""

    ttl: int = ANSWER_TTL
    cache: int = CACHED_REPLIES
    upstreams: tuple[str, ...] = ()
    resolv_conf: str = RESOLV_CONF
    query_log: float = 0.0  # the share of queries that is logged
