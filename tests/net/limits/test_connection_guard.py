"""Which connections of a server end, by hand: time is told."""

from types import SimpleNamespace
from typing import Any

from mesh.net.limits.connection_guard import ConnectionGuard, GuardLimits


class Transport:
    def __init__(self, address: str) -> None:
        self.address = address
        self.aborted = False

    def get_extra_info(self, _name: str) -> tuple[str, int]:
        return (self.address, 1)

    def abort(self) -> None:
        self.aborted = True


class Server:
    """What of aiohttp's server is replaced."""

    def __init__(self) -> None:
        self.connection_made: Any = lambda _handler, _transport: None
        self.connection_lost: Any = lambda _handler, _exc=None: None
        self.request_handler: Any = self._handle
        self.during: Any = lambda: None

    async def _handle(self, _request: object) -> str:
        self.during()
        return "answer"


class Stage:
    def __init__(self, limits: GuardLimits) -> None:
        self.now = 0.0
        self.refused: list[str] = []
        self.guard = ConnectionGuard(limits, self.refused.append, lambda: self.now)
        self.server = Server()
        self.guard.attach(self.server)  # type: ignore[arg-type]
        self._handlers: dict[str, object] = {}

    def come(self, name: str, address: str = "192.0.2.1") -> Transport:
        transport = Transport(address)
        self._handlers[name] = object()
        self.server.connection_made(self._handlers[name], transport)
        return transport

    async def ask(self, name: str) -> None:
        assert await self.server.request_handler(SimpleNamespace(protocol=self._handlers[name])) == "answer"

    def leave(self, name: str) -> None:
        self.server.connection_lost(self._handlers[name])


async def test_each_wait_has_its_time() -> None:
    stage = Stage(GuardLimits(4, 4, first=10, next=30))
    silent, asking = stage.come("silent"), stage.come("asking")
    stage.now = 9
    await stage.ask("asking")
    stage.now = 10
    stage.guard.end_overdue()
    assert (silent.aborted, asking.aborted) == (True, False)
    stage.now = 39
    stage.guard.end_overdue()
    assert asking.aborted
    assert stage.refused == ["silent", "silent"]
    assert len(stage.guard) == 0


async def test_an_answer_under_way_has_no_limit() -> None:
    stage = Stage(GuardLimits(1, 1, first=10, next=30))
    one = stage.come("one")

    def later() -> None:
        stage.now = 1000
        stage.guard.end_overdue()
        assert stage.come("two").aborted  # there is nobody to give way

    stage.server.during = later
    await stage.ask("one")
    assert not one.aborted
    assert stage.refused == ["too many connections"]
    assert not stage.come("three", "192.0.2.9").aborted  # now there is
    assert one.aborted


async def test_who_gives_way() -> None:
    stage = Stage(GuardLimits(4, 2))
    first, second = stage.come("1", "a"), stage.come("2", "a")
    third = stage.come("3", "a")
    assert (first.aborted, second.aborted, third.aborted) == (True, False, False)
    stage.come("4", "b")
    stage.come("5", "c")
    sixth = stage.come("6", "d")
    assert (second.aborted, third.aborted, sixth.aborted) == (True, False, False)
    stage.leave("6")
    assert len(stage.guard) == 3
