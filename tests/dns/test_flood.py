"""One endpoint is flooded from another process; whoever asks at another endpoint must be answered."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from statistics import quantiles

import pytest

from mesh.dns.udp_server import DnsEndpoint
from tests.dns import flood
from tests.dns.serving import Serving, Starter, bound
from tests.dns.world import BOTH, FRONT


@asynccontextmanager
async def running(*arguments: object) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "tests.dns.flood", *map(str, arguments))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def asked_steadily(kind: str, port: int) -> list[float | None]:
    async with running("steady", kind, port) as process:
        out, _ = await process.communicate()
    return list(json.loads(out))


@asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    """In a process of its own, lest the resolver pay for it."""
    async with running("upstream") as process:
        assert process.stdout is not None
        port = await process.stdout.readline()
        yield f"127.0.0.1:{int(port)}"


@asynccontextmanager
async def beside(serving: Serving) -> AsyncIterator[int]:
    """The port of another container's endpoint at the same resolver."""
    udp, tcp, port = bound()
    other = DnsEndpoint(serving.resolver, udp, tcp, BOTH)
    await other.start()
    try:
        yield port
    finally:
        other.close()


@pytest.mark.parametrize(
    ("wanted", "kind"), [*(("local", kind) for kind in flood.KINDS), ("forwarded", "unknown")]
)
async def test_another_endpoint_is_served_all_the_same(
    start: Starter, wanted: str, kind: str, record_property: Callable[[str, object], None]
) -> None:
    async with upstream() as others:
        serving = await start(FRONT, others)
        async with beside(serving) as port, running(kind, serving.port):
            taken = await asked_steadily(wanted, port)
        stats = serving.resolver.stats
        flooded = sum(serving.resolver.requests.values()) + sum(stats.dropped.values()) - len(taken)
    report = f"{wanted} during {flooded} {kind}: {distribution(taken)}"
    record_property("latency", report)
    print(report)
    assert len(taken) == flood.STEADY
    assert None not in taken, Counter(one is not None for one in taken)


def distribution(taken: list[float | None]) -> str:
    """In milliseconds."""
    told = sorted(one * 1000 for one in taken if one is not None)
    of = quantiles(told, n=10, method="inclusive")
    return f"median {of[4]:.1f} ms, 90 % {of[8]:.1f} ms, longest {told[-1]:.1f} ms"
