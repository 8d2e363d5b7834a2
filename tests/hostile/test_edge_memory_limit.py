"""A process that a client drives to its limit of memory: another one takes its place, all others go on."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mesh.balance.hash_slots import Choice
from mesh.kernel.heartbeat import BEAT_SECONDS, Heartbeat
from mesh.kernel.netfilter import nft
from mesh.kernel.netfilter.nft_batch import Batches
from mesh.kernel.rulesets import container_rules, vips_update
from tests.hostile.test_least_privilege import ADDRESS, MIB, Attacked, attacked, status
from tests.hostile.test_memory_of_attacks import line, program
from tests.http.conftest import Conversation, serving
from tests.loopback.test_http_workers import asked
from tests.loopback.test_sidecar import get
from tests.net.lab import inside, laboratory, needs_root
from tests.support import http_attacks
from tests.support.waiting import until
from tests.support.workers import children

HTTP = "sidecar.processes.http"
MORE = 8 * MIB  # than it takes when nobody attacks; heads that do not end may take three times as much

pytestmark = needs_root


async def endpoint(one: Conversation) -> None:
    await one.head()
    await one.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")


async def answered(port: int) -> bool:
    try:
        return await asyncio.to_thread(asked, port) == 200
    except (OSError, ValueError):
        return False


async def comes_to_answer(port: int) -> None:
    async with asyncio.timeout(20):
        while not await answered(port):
            await asyncio.sleep(0.05)


async def usual(folder: Path, target: int) -> int:
    """Bytes of data of a process that has answered."""
    async with attacked(folder, target) as one:
        _, http = await one.processes()
        await comes_to_answer(one.entry)
        return int(status(http)["VmData"].split()[0]) * 1024


@asynccontextmanager
async def kept_up() -> AsyncIterator[None]:
    """Rules in the kernel, kept up by the loop of the sidecar: they have not run out at any beat, and each
    new virtual IP got into them."""
    with laboratory() as lab:
        box = lab.namespace("box")
        box.call(lambda: nft.run(container_rules({}, None)))
        opened = box.call(Batches)
        heart = Heartbeat(opened)
        run_out, loaded, missing = False, 0, 0

        async def beat() -> None:
            nonlocal run_out, loaded, missing
            heart.beat()
            before: dict[str, Choice] = {}
            while True:
                await asyncio.sleep(BEAT_SECONDS)
                run_out |= "expires" not in inside(box, "nft", "list", "set", "ip", "mesh", "alive")
                heart.beat()
                vip = f"10.9.{loaded % 250}.2"
                now = {vip: Choice(("10.9.0.3",))}
                missing += not opened.change(vips_update(before, now))
                before, loaded = now, loaded + 1
                missing += vip not in inside(box, "nft", "list", "map", "ip", "mesh", "vips")

        beating = asyncio.ensure_future(beat())
        yield
        assert not beating.done()
        beating.cancel()
        opened.close()
        assert not run_out
        assert loaded > 0
        assert not missing


async def ends(one: Attacked) -> str:
    text = (await get(one.bound.metrics, "/metrics"))[1]
    return "\n".join(re.findall(r"^mesh_process_ends_total.*$", text, re.MULTILINE))


async def test_a_process_at_its_limit_of_memory_is_replaced(tmp_path: Path) -> None:
    async with serving(endpoint, ADDRESS) as task, kept_up():
        target = task.endpoint.port
        limit = (await usual(tmp_path, target) + MORE) // MIB
        async with attacked(tmp_path, target, MESH_EDGE_MEMORY=str(limit)) as one:
            relay, http = await one.processes()
            await comes_to_answer(one.entry)
            attack = (str(http_attacks.__file__), ADDRESS, str(one.entry), "slow_heads")
            async with program(*attack) as enemy:
                await line(enemy)
                assert enemy.stdin is not None
                enemy.stdin.write(b"\n")
                async with asyncio.timeout(60):
                    while http in children(HTTP):
                        assert await answered(one.relayed)  # in another process
                        await asyncio.sleep(0.01)
                names = one.answered
                await until(lambda: one.answered > names + 5, "names are answered")
                await comes_to_answer(one.entry)
                assert await answered(one.relayed)
            assert (await one.processes())[0] == relay
            assert 'mesh_process_ends_total{kind="HTTP",reason="exited"}' in await ends(one)
