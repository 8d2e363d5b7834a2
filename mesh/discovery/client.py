"""Docker's API through its own SDK, which blocks: calls on a few threads, event streams on one each.

Everything that can go wrong with the socket becomes EngineUnavailable here, with the path and the remedy.
"""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound

from mesh.errors import DiscoveryError, EngineUnavailable

Json = Mapping[str, Any]
T = TypeVar("T")

THREADS = 4  # calls at once; dockerd serialises much of it anyway
CALL_SECONDS = 10.0
EVENTS_MAX = 4096  # not yet looked at; more, and everything is listed again


class Events:
    """A bounded stream of the engine's events. `lost` is set when some could not be kept."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Json] = asyncio.Queue(EVENTS_MAX)
        self.lost = False
        self._ended: str | None = None

    async def next(self) -> Json:
        """The next event. EngineUnavailable when the stream has ended."""
        event = await self._queue.get()
        if not event:
            raise EngineUnavailable(self._ended or "the engine's event stream ended")
        return event

    def put(self, event: Json) -> None:
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost = True

    def end(self, why: str) -> None:
        self._ended = why
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait({})


class EngineClient:
    """The calls that discovery needs, awaitable. EngineUnavailable: no engine; DiscoveryError: it refused."""

    def __init__(self, socket_path: str) -> None:
        self._path = socket_path
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mesh-docker")
        self._local = threading.local()
        self._streams: list[Any] = []

    async def info(self) -> Json:
        return await self._call(lambda api: api.info())

    async def containers(self) -> list[Json]:
        """Inspected, all that run."""

        def work(api: Any) -> list[Json]:
            found = (_inspected(api, one["Id"]) for one in api.containers())
            return [one for one in found if one is not None]

        return await self._call(work)

    async def container(self, id_: str) -> Json | None:
        """None when it is gone already."""
        return await self._call(lambda api: _inspected(api, id_))

    async def networks(self) -> list[Json]:
        return await self._call(lambda api: api.networks())

    async def network(self, id_: str, verbose: bool = False) -> Json | None:
        def work(api: Any) -> Json | None:
            try:
                found: Json = api.inspect_network(id_, verbose=verbose or None)
            except NotFound:
                return None
            return found

        return await self._call(work)

    async def cluster(self, read: Callable[[Any], T]) -> T:
        """`read` gets the SDK's client, on a thread: for several calls and their parsing in one go."""
        return await self._call(read)

    def events(self) -> Events:
        """Start to listen; what happens from now on is in it."""
        events, loop = Events(), asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(events, loop), name="docker-events", daemon=True).start()
        return events

    def close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- threads ---

    async def _call(self, work: Callable[[Any], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._on_thread, work)

    def _on_thread(self, work: Callable[[Any], T]) -> T:
        try:
            api = getattr(self._local, "api", None)
            if api is None:
                api = self._local.api = self._connect(CALL_SECONDS)
            return work(api)
        except APIError as error:
            raise DiscoveryError(f"docker: {error.explanation or error}") from error
        except (DockerException, requests.RequestException, OSError) as error:
            self._local.api = None
            raise self._unavailable(error) from error

    def _connect(self, timeout: float | None) -> Any:
        return docker.APIClient(f"unix://{self._path}", version="auto", timeout=timeout)  # type: ignore[arg-type]

    def _unavailable(self, error: Exception) -> EngineUnavailable:
        """What is wrong with the socket, and what to do about it."""
        if not os.path.exists(self._path):
            return EngineUnavailable(f"there is no Docker socket at {self._path}: bind it into the sidecar")
        if not os.access(self._path, os.R_OK | os.W_OK):
            return EngineUnavailable(f"{self._path}: permission denied: run as root or in its group")
        return EngineUnavailable(f"nothing answers on {self._path}: is dockerd running? ({error})")

    def _listen(self, events: Events, loop: asyncio.AbstractEventLoop) -> None:
        why = "the engine's event stream ended"
        stream = None
        try:
            stream = self._connect(None).events(decode=True)
            self._streams.append(stream)
            for event in stream:
                loop.call_soon_threadsafe(events.put, event)
        except (DockerException, requests.RequestException, OSError, ValueError, AttributeError) as error:
            # ValueError and AttributeError: the SDK on a stream that was closed under it
            why = str(self._unavailable(error))
        finally:
            if stream in self._streams:
                self._streams.remove(stream)
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.end, why)


def _inspected(api: Any, id_: str) -> Json | None:
    try:
        found: Json = api.inspect_container(id_)
    except NotFound:
        return None
    return found
