"""What a restricted process and the sidecar say about sockets, on a pair of their own.

    process ──▶ Wanted                    sidecar ──▶ Made, with the sockets; NotMade; Stale

A `place` is where sockets are made: "" is the namespace that published ports lead through, anything else the
id of a network.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from sidecar.workers.messages import Messages, Text

BATCH_MAX = 128  # sockets of one answer; SCM_RIGHTS takes 253


@dataclass(frozen=True, slots=True)
class Wanted:
    """Unconnected sockets, please: TCP, or UDP."""

    place: Text
    udp: bool
    count: Annotated[int, Field(ge=1, le=BATCH_MAX)]


@dataclass(frozen=True, slots=True)
class Made:
    """At least one socket comes with it."""

    place: str
    udp: bool


@dataclass(frozen=True, slots=True)
class NotMade:
    """`gone`: nothing of the place is on this node; else `errno` says why."""

    place: str
    udp: bool
    gone: bool
    errno: int
    why: str


@dataclass(frozen=True, slots=True)
class Stale:
    """The place is not what it was: sockets of before lead nowhere."""

    place: str


WANTS = Messages((Wanted,))
ANSWERS = Messages((Made, NotMade, Stale))
