"""What an operator may set, and the limits that nobody needs to."""

from dataclasses import dataclass

from mesh.dns.name_policy import OURS, NamePolicy

CACHED_REPLIES = 10_000  # replies, a rotation of n counting as n
RESOLV_CONF = "/etc/resolv.conf"
GATEWAY = "gateway"  # as an address to listen on: the node's on BRIDGE
BRIDGE = "docker_gwbridge"

QUERY_MAX = 4096  # bytes of a query over TCP; EDNS queries with every option in use stay far below
PLAIN_UDP = 512  # bytes of a UDP reply to a client that named no size (RFC 1035 4.2.1)
UDP_REPLY_MAX = 1232  # bytes, whatever EDNS asks for: crosses an overlay unfragmented (DNS flag day 2020)
TCP_REPLY_MAX = 65_535  # the length prefix ends there

ROTATIONS = 256  # ready-made orders of one answer, so that each of that many records comes first in turn
SHUFFLES = 64  # the same where orders are random: at least so many
CACHED_REPLY_MAX = 4096  # bytes; larger replies are rare and would make the cache's memory unbounded
CACHED_TTL_MAX = 3600  # seconds; a forwarded record is asked for again after that at the latest
CACHED_NEGATIVE_TTL_MAX = 60  # seconds; RFC 2308 allows hours, people who just created a name do not

UPSTREAMS_MAX = 3  # servers of a resolv.conf that are used, as libc and Docker do
UPSTREAMS_CONFIGURED_MAX = 8  # servers that an operator may name
FORWARD_DEADLINE = 4.5  # seconds for a question, all tries together: before a stub resolver's usual 5 s end
FORWARD_TRY_TIMEOUT = 1.5  # seconds that one server is given, unless resolv.conf says less
FORWARD_ROUNDS = 3  # over all servers, unless resolv.conf says `attempts`; the deadline ends them sooner
FORWARDS_MAX = 4096  # queries waiting for upstreams; then whoever has the most gives way to newcomers
FORWARDS_PER_ASKER = FORWARDS_MAX // 4  # of one container: Docker's 1024, and no one can have them all
REPETITIONS_MAX = 64  # of one question by one asker that wait; then the oldest gives way, long given up
REFRESHES_MAX = 64  # questions asked again ahead of time that may be under way; more are let be
UPSTREAM_OUTSTANDING_MAX = FORWARDS_MAX  # tries under way at one server: only second tries may find no room
DESCRIPTORS_SHARE = 0.5  # of those that the process may have: tries, each with a socket, take no more

HEDGE_MIN, HEDGE_MAX = 0.05, 1.0  # seconds of silence before the same is asked again, whatever is usual
HEDGE_UNKNOWN = 0.4  # seconds, for a server that has not answered yet: slower than nearly all that work
EXPLORE_EVERY = 32  # of that many questions one goes to a server that is not the fastest, among equals
UNANSWERED_MAX = 4  # overtaken tries in a row without one reply: then a server counts as failed
SERVER_REST, SERVER_REST_MAX = 1.0, 30.0  # seconds until a failed server is probed again, doubling
SERVER_UNUSED = 60.0  # seconds without a question for it; then a failed server is not probed any more
SERVERS_KNOWN_MAX = 1024  # servers whose health is remembered; those of containers count one by one
SHORTAGE_TOLD = 10.0  # seconds between two lines in the log about a lack of descriptors or ports
HABITS_KEPT = 3600.0  # seconds that a server counts as one that knows no EDNS, or changes the case of names
SECURE_IDLE = 10.0  # seconds for a connection over TLS to be opened, and to be kept without a question
SECURE_SILENCE = 1.0  # seconds without any reply on it; then the way there may be gone, and another is opened
FORGERIES_MAX = 16  # messages that are no reply to the query; then the question is asked over TCP
LOOP_REST = 300.0  # seconds that a loop is said to exist after a question came back; ourselves are left out
LOOP_LETTERS = 6  # of a name: fewer could come in our random spelling by chance

FORWARDED_BYTES_MAX = 16 * 1024 * 1024  # of memory for upstreams' replies, however many they are
STALE_MAX_AGE = 86_400.0  # seconds after its end that a reply may be given, for lack of any other (RFC 8767)
STALE_TTL = 30  # seconds, of the records in such a reply (RFC 8767 4)
STALE_READY = 1.0  # seconds that one is a cache hit; then somebody looks whether there is a better one
STALE_ANSWER_AFTER = 1.8  # seconds that an asker waits for upstreams if there is one (RFC 8767 5)
STALE_RECHECK = 5.0  # seconds until upstreams are asked again for what they just failed to answer: not the 30
# of RFC 8767, which spare authorities; ours are resolvers near by, and whoever repairs one wants to see it
FAILURE_TTL = 1.0  # seconds that a failure is remembered without a stale reply (RFC 9520 3.2 asks for 1 s)
FAILURES_MAX = 1024  # failures remembered
RESOLV_CONF_CHECK = 1.0  # seconds between two looks at the file
RESOLV_TIMEOUT_MAX = 30  # seconds of `options timeout`, libc's own limit
RESOLV_ATTEMPTS_MAX = 5  # rounds of `options attempts`, libc's own limit

UDP_BATCH = 64  # datagrams per wake-up, so that no socket starves the others
UDP_BATCH_SLOW = 16  # instead, after a batch with as many queries that took work: a millisecond or two
UDP_SLOT = 1280  # bytes of a datagram read, more than any query has; larger replies are sent by themselves
PREFETCH_SHARE = 0.1  # of a forwarded reply's life: who asks in the last tenth has it fetched anew
SOURCES_MAX = 4096  # source addresses whose scope is remembered by an explicit endpoint
TCP_CONNECTIONS_MAX = 128  # per endpoint; then the longest idle gives way to a newcomer
TCP_PIPELINE_MAX = 64  # queries of one connection that may wait for an upstream; then reading pauses
TCP_IDLE = 10.0  # seconds for the next query to arrive whole, and for replies to be taken

QUERY_LOG_PER_SECOND = 200  # lines; each costs about 0.2 ms
QUERY_LOG_ANSWERS = 8  # records shown of one reply


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """`upstreams`: `ADDR`, `ADDR:PORT` or `tls://…`; empty: those of `resolv_conf`, followed as it changes.

    `names`: what a name means. `alike`: any upstream knows what the others know, so the fastest is asked.
    `mixed_case`: names are sent in random case (0x20). `listen`: where we answer besides, each an address or
    GATEWAY and a port. `query_log`: the share of queries that is logged.
    Times in seconds.
    """

    cache: int = CACHED_REPLIES
    upstreams: tuple[str, ...] = ()
    resolv_conf: str = RESOLV_CONF
    listen: tuple[tuple[str, int], ...] = ()
    names: NamePolicy = OURS
    query_log: float = 0.0
    alike: bool = False
    mixed_case: bool = True
    deadline: float = FORWARD_DEADLINE
    try_timeout: float = FORWARD_TRY_TIMEOUT
    stale_answer_after: float = STALE_ANSWER_AFTER
