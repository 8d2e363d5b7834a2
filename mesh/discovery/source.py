"""What every source of the catalogue offers: it runs, and it says how it fares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from mesh.errors import Problem


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """What people are told about a source. `last_success`: seconds since the epoch, None for never.

    The feed's part is empty where there is no feed: a manager serves one, a worker follows one.
    """

    kind: str  # docker | file
    role: str = ""  # manager | worker, "" where that means nothing
    connected: bool = False
    last_success: float | None = None
    last_error: str = ""
    problems: tuple[Problem, ...] = ()
    feed_following: str = ""  # the manager whose feed is followed
    feed_serving: bool = False
    feed_clients: int = 0
    feed_refused: int = 0
    feed_error: str = ""
    signs: Mapping[str, int] = field(default_factory=dict)  # of ends on other nodes, by what became of them
    neighbours_refused: Mapping[str, int] = field(default_factory=dict)  # of what nodes say, by reason
    return_paths_refused: Mapping[str, int] = field(default_factory=dict)  # the same of their entries


class Source(Protocol):
    """Publishes changes until cancelled."""

    async def run(self) -> None: ...

    def status(self) -> SourceStatus: ...
