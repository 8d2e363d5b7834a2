"""Before an authority looks, we look: does every node of the Swarm give the right answer on its entry point?

The authority may come to any of them, more than once, and counts what fails. A node that has just come may
not know the account yet; it is asked again until it does, or for so long that it will not be what decides.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

import aiohttp

from mesh.acme.client import Proof
from mesh.http.routing.router import CHALLENGE_PATH

READY_SECONDS = 15.0  # for all nodes together
ASK_SECONDS = 2.0  # for one answer
AGAIN_SECONDS = 0.25  # before a node that did not give it is asked again
ANSWER_MAX = 1024  # bytes; it is some 90
AT_ONCE = 32  # nodes

logger = logging.getLogger(__name__)


class SelfCheck:
    """`nodes`: their addresses; `port`: of the entry point without TLS."""

    def __init__(self, nodes: Callable[[], Sequence[str]], port: int) -> None:
        self._nodes = nodes
        self._port = port

    async def prepare(self, proofs: Sequence[Proof]) -> None:
        """Until all nodes answer right. Those that do not in time are logged, and nothing else."""
        missing = set(self._nodes())
        connector = aiohttp.TCPConnector(limit=AT_ONCE, force_close=True)
        timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            try:
                async with asyncio.timeout(READY_SECONDS), asyncio.TaskGroup() as group:
                    for node in tuple(missing):
                        group.create_task(self._until_right(session, node, proofs, missing))
            except TimeoutError:
                logger.warning("nodes that do not prove our names: %s", ", ".join(sorted(missing)))

    async def _until_right(
        self, session: aiohttp.ClientSession, node: str, proofs: Sequence[Proof], missing: set[str]
    ) -> None:
        while True:
            right = [await self._right(session, node, proof) for proof in proofs]
            if all(right):
                missing.discard(node)
                return
            await asyncio.sleep(AGAIN_SECONDS)

    async def _right(self, session: aiohttp.ClientSession, node: str, proof: Proof) -> bool:
        url = f"http://{f'[{node}]' if ':' in node else node}:{self._port}{CHALLENGE_PATH}{proof.token}"
        try:
            async with session.get(url, headers={"Host": proof.name}, allow_redirects=False) as response:
                said = await response.content.read(ANSWER_MAX)
                return response.status == 200 and said == proof.text.encode()
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False
