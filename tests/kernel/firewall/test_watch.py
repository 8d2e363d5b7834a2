"""Changes of a host's firewall are noticed as they happen."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop

from mesh.kernel.firewall.watch import FirewallWatch
from mesh.net.netns import Namespace
from mesh.net.tasks import Tasks
from tests.net.lab import inside, laboratory, needs_root
from tests.support.waiting import until

pytestmark = [pytest.mark.root, needs_root]


@pytest.fixture
def box() -> Iterator[Namespace]:
    with laboratory() as lab:
        yield lab.namespace("box")


class Watched:
    """Each look, with the tables that were gone. Due looks without a reason are too far away to come."""

    def __init__(self, box: Namespace, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mesh.kernel.firewall.watch.LOOK_SECONDS", 1000.0)
        self.looks: list[frozenset[str]] = []
        self.failures: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.failures.append(error))
        self.watch = FirewallWatch(self.tasks, self._changed, box.path)

    async def _changed(self, gone: frozenset[str]) -> bool:
        self.looks.append(gone)
        return False

    async def during(self, work: Callable[[], Awaitable[None]]) -> None:
        self.watch.start()
        await work()
        await self.watch.close()
        await self.tasks.close()
        assert not self.failures


async def test_a_rule_of_either_back_end_and_a_table_that_is_gone(
    box: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside(box, "iptables-legacy", "-N", "EARLIER")
    seen = Watched(box, monkeypatch)

    async def work() -> None:
        for program in ("iptables-nft", "ip6tables-nft", "iptables-legacy"):
            before = len(seen.looks)
            inside(box, program, "-A", "INPUT", "-j", "ACCEPT")
            await until(lambda before=before: len(seen.looks) > before, program)  # type: ignore[misc]
        inside(box, "nft", "add table ip mesh; add set ip mesh s { type ipv4_addr; }")
        before = len(seen.looks)
        inside(box, "nft", "add element ip mesh s { 10.0.0.1 }")
        inside(box, "nft", "add table ip mesh; delete table ip mesh; add table ip mesh")
        inside(box, "nft", "flush", "ruleset")
        await until(lambda: len(seen.looks) > before, "it is told")
        assert "ip mesh" in seen.looks[before], "and changes of a table of ours had been no reason"

    await seen.during(work)


def test_more_changes_than_the_socket_holds_do_not_deafen_it(
    box: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Watched(box, monkeypatch)

    async def work() -> None:
        sock = seen.watch._socket
        assert sock is not None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the kernel's least
        chains = "".join(f"add chain ip filter c{number};" for number in range(200))
        inside(box, "nft", f"add table ip filter; {chains}")  # the loop waits: nobody reads meanwhile
        await until(lambda: any("ip mesh" in look for look in seen.looks), "what was missed is looked at")
        for _ in range(2):
            before = len(seen.looks)
            inside(box, "iptables-nft", "-A", "INPUT", "-j", "ACCEPT")
            await until(lambda before=before: len(seen.looks) > before, "a later change is noticed")  # type: ignore[misc]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(seen.during(work))
