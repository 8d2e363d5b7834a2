"""How each server does, and in which order servers are asked. Pure: time is an argument.

A server's latency is smoothed as RFC 6298 does it, and what is usual is its mean and four deviations. One
that fails (silent for a whole try, unreachable, overtaken time and again) comes last until it replies to
anything, be it a probe; probes come at once and then ever less often.

Listed servers are asked in their order, as libc and Docker do, since the first may know names that the second
does not: silence beyond the usual has the *same* server asked again, in case a datagram was lost, and only
failure leads to the next. Servers that are alike (the operator says so) are asked fastest first, and silence
beyond the usual leads to the next; now and then another one comes first, so that its latency is known.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mesh.dns.config import (
    HABITS_KEPT,
    HEDGE_MAX,
    HEDGE_MIN,
    HEDGE_UNKNOWN,
    LOOP_REST,
    SERVER_REST,
    SERVER_REST_MAX,
    UNANSWERED_MAX,
    UPSTREAM_OUTSTANDING_MAX,
)
from mesh.dns.forward.route import DnsServer, Manner


class ServerHealth:
    """What is known of one server. Times in seconds; `now` is any clock that only goes forward."""

    __slots__ = (
        "_changes_case_until",
        "_deviation",
        "_failures",
        "_knows_no_edns_until",
        "_loops_until",
        "_ourselves",
        "_overtaken",
        "latency",
        "outstanding",
        "rests_until",
        "used_at",
    )

    def __init__(self) -> None:
        self.latency: float | None = None  # smoothed; None until the first reply
        self._deviation = 0.0
        self._failures = self._overtaken = 0
        self.rests_until = 0.0  # when to probe a failing server
        self.outstanding = 0  # tries under way
        self.used_at = 0.0  # when a question came this way
        self._changes_case_until = self._knows_no_edns_until = self._loops_until = 0.0
        self._ourselves = False

    @property
    def failing(self) -> bool:
        return self._failures > 0

    @property
    def full(self) -> bool:
        return self.outstanding >= UPSTREAM_OUTSTANDING_MAX

    @property
    def usual(self) -> float:
        """Longer silence than this is unusual."""
        if self.latency is None:
            return HEDGE_UNKNOWN
        return min(max(self.latency + 4 * self._deviation, HEDGE_MIN), HEDGE_MAX)

    def replied(self, seconds: float) -> None:
        """Any reply, after so long: it is there."""
        self._learn(seconds)
        self._failures = self._overtaken = 0

    def overtaken(self, seconds: float, now: float) -> None:
        """Another try had its reply first, when this server had been silent for so long."""
        self._overtaken += 1
        if self.latency is not None and seconds > self.latency:
            self._learn(seconds)
        if self._overtaken >= UNANSWERED_MAX:
            self._overtaken = 0
            self.failed(now)

    def failed(self, now: float) -> None:
        """Silent for a whole try, or not to be reached."""
        self._failures += 1
        rest = min(SERVER_REST * 2 ** min(self._failures - 1, 16), SERVER_REST_MAX)
        self.rests_until = now + rest

    def _learn(self, seconds: float) -> None:
        if self.latency is None:
            self.latency, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(seconds - self.latency) - self._deviation) / 4
        self.latency += (seconds - self.latency) / 8

    # --- habits, remembered for a while ---------------------------------------------------------------------

    def changes_case(self, now: float) -> bool:
        return now < self._changes_case_until

    def note_case_change(self, now: float) -> None:
        self._changes_case_until = now + HABITS_KEPT

    def knows_edns(self, now: float) -> bool:
        return now >= self._knows_no_edns_until

    def note_no_edns(self, now: float) -> None:
        self._knows_no_edns_until = now + HABITS_KEPT

    def loops(self, now: float) -> bool:
        """Did it lead a question back to us?"""
        return now < self._loops_until

    def left_out(self, now: float) -> bool:
        """Is it ourselves? (Another resolver that asks us about some names may well know others.)"""
        return self._ourselves and self.loops(now)

    def note_loop(self, now: float, ourselves: bool) -> None:
        self._loops_until, self._ourselves = now + LOOP_REST, ourselves


@dataclass(frozen=True, slots=True)
class Turn:
    """One try. `patience`: seconds of silence until the next turn begins, beside it."""

    server: DnsServer
    patience: float


def turns(
    servers: Sequence[DnsServer],
    health: Callable[[DnsServer], ServerHealth],
    *,
    manner: Manner,
    explore: int | None = None,
) -> tuple[Turn, ...]:
    """Whom to ask, in order. `explore`: among equals, have the n-th of the slower ones come first."""
    if not manner.alike or len(servers) < 2:
        ordered = sorted(servers, key=lambda server: health(server).failing)
        once = [
            turn for server in ordered for turn in _twice(server, health(server).usual, manner.try_timeout)
        ]
        return tuple(once * manner.rounds)
    ordered = sorted(servers, key=lambda s: (health(s).failing, health(s).latency or 0.0))
    if explore is not None:
        _bring_forward(ordered, [s for s in ordered[1:] if not health(s).failing], explore)
    first = [Turn(server, health(server).usual) for server in ordered[:-1]]
    later = [Turn(server, manner.try_timeout) for server in ordered]
    return (*first, later[-1], *(later * (manner.rounds - 1)))


def _twice(server: DnsServer, usual: float, whole: float) -> tuple[Turn, ...]:
    """TCP under TLS loses nothing, so asking again soon would not help."""
    if server.tls_name or usual >= whole:
        return (Turn(server, whole),)
    return Turn(server, usual), Turn(server, whole - usual)


def _bring_forward(ordered: list[DnsServer], others: list[DnsServer], which: int) -> None:
    if others:
        chosen = others[which % len(others)]
        ordered.remove(chosen)
        ordered.insert(0, chosen)
