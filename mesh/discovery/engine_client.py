"""Docker's API through its own SDK, which blocks: calls on a few threads, the event stream on another.

Everything that can go wrong with the socket becomes EngineUnavailable here, with the path and the remedy;
what the engine answers but refuses is a DiscoveryError.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from urllib3.exceptions import HTTPError

from mesh.discovery.swarm_json import NOT_UNDERSTOOD
from mesh.errors import DiscoveryError, EngineUnavailable
from mesh.net.isolation import run

Json = Mapping[str, Any]
T = TypeVar("T")

THREADS = 4  # calls at once; dockerd serialises much of it anyway
CALL_SECONDS = 30.0  # a manager without quorum takes 20 s to say so
SHOWN_MAX = 200  # characters of an error's text
EVENTS_MAX = 4096  # not yet looked at; more, and everything is listed again


logger = logging.getLogger(__name__)


class Events:
    """A bounded stream of the engine's events. `lost` is set when some could not be kept.

    `at_once` is called with each as it arrives, kept or not.
    """

    def __init__(self, stop: Callable[[], None] = lambda: None) -> None:
        self._queue: asyncio.Queue[Json] = asyncio.Queue(EVENTS_MAX)
        self._stop = stop
        self._ended: str | None = None
        self.lost = False
        self.at_once: Callable[[Json], None] = lambda _: None

    async def next(self) -> Json:
        """The next event. EngineUnavailable when the stream has ended."""
        event = await self._queue.get()
        if not event:
            raise EngineUnavailable(self._ended or "the engine's event stream ended")
        return event

    def put(self, event: Json) -> None:
        run(self.at_once, event)
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lost = True

    def end(self, why: str) -> None:
        self._ended = why
        while self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait({})

    def close(self) -> None:
        """Stop to listen."""
        self._stop()


class Engine(Protocol):
    """What discovery asks of a Docker engine. EngineUnavailable: no engine; DiscoveryError: it refused."""

    async def info(self) -> Json: ...

    async def containers(self) -> Mapping[str, Json | None]:
        """All that run, by id, inspected; None for one that the engine cannot describe."""

    async def container(self, id_: str) -> Json | None:
        """Inspected; None when it is gone already."""

    async def networks(self) -> list[Json]: ...

    async def network(self, id_: str, verbose: bool = False) -> Json | None:
        """Inspected; None when it is gone already."""

    async def cluster(self, read: Callable[[Any], T]) -> T:
        """`read` gets the SDK's client, on a thread: for several calls and their parsing in one go."""

    async def events(self, since: float) -> Events:
        """Listening when it returns: what happens from now on is in it, and what happened after `since`
        (seconds since the epoch), as far as the engine remembers it."""


class ReadOnlyClient(docker.APIClient):
    """The SDK's client, which sends GET and nothing else: no bug of ours can change anything in there."""

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Raises DiscoveryError for every other method; nothing is sent then."""
        if request.method != "GET":
            raise DiscoveryError(
                f"only GET is sent to the Docker socket, not {request.method} {request.path_url}"
            )
        return super().send(request, **kwargs)


class EngineClient:
    """`Engine` over Docker's socket."""

    def __init__(self, socket_path: str, call_seconds: float = CALL_SECONDS) -> None:
        self._path = socket_path
        self._call_seconds = call_seconds
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mesh-docker")
        self._local = threading.local()
        self._streams: set[Any] = set()
        self._closed = False

    async def info(self) -> Json:
        return await self._call(lambda api: api.info())

    async def containers(self) -> Mapping[str, Json | None]:
        return await self._call(_running)

    async def container(self, id_: str) -> Json | None:
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
        try:
            return await self._call(read)
        except EngineUnavailable as error:
            if isinstance(
                error.__cause__, requests.ReadTimeout
            ):  # it hears us: the managers do not answer it
                raise DiscoveryError("docker: the Swarm's managers do not answer: no quorum?") from error
            raise

    async def events(self, since: float) -> Events:
        """A thread reads the stream until `close()` or its end."""
        stream = await self._call(lambda _: self._connect().events(since=f"{since:.9f}", decode=True))
        self._streams.add(stream)
        events, loop = Events(lambda: _close(stream)), asyncio.get_running_loop()
        reader = threading.Thread(
            target=self._listen, args=(stream, events, loop), name="mesh-docker-events", daemon=True
        )
        reader.start()
        return events

    def close(self) -> None:
        self._closed = True
        for stream in tuple(self._streams):
            _close(stream)
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- threads ---

    async def _call(self, work: Callable[[Any], T]) -> T:
        if self._closed:
            raise EngineUnavailable("the sidecar is stopping")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._on_thread, work)

    def _on_thread(self, work: Callable[[Any], T]) -> T:
        try:
            api = getattr(self._local, "api", None)
            if api is None:
                api = self._local.api = self._connect()
            return work(api)
        except APIError as error:
            raise DiscoveryError(f"docker: {error.explanation or error}") from error
        except (DockerException, requests.RequestException, HTTPError, OSError) as error:
            self._local.api = None
            raise self._unavailable(error) from error
        except NOT_UNDERSTOOD as error:
            what = f"{type(error).__name__}: {error}"[:SHOWN_MAX]
            raise DiscoveryError(f"docker: what it answers is not understood: {what}") from error

    def _connect(self) -> Any:
        seconds: Any = self._call_seconds  # the SDK's annotation wants whole ones
        return ReadOnlyClient(f"unix://{self._path}", version="auto", timeout=seconds)

    def _unavailable(self, error: object) -> EngineUnavailable:
        """What is wrong with the socket, and what to do about it."""
        if not os.path.exists(self._path):
            return EngineUnavailable(f"there is no Docker socket at {self._path}: bind it into the sidecar")
        if not os.access(self._path, os.R_OK | os.W_OK):
            return EngineUnavailable(f"{self._path}: permission denied: run as root or in its group")
        return EngineUnavailable(f"nothing answers on {self._path}: is dockerd running? ({error})")

    def _listen(self, stream: Any, events: Events, loop: asyncio.AbstractEventLoop) -> None:
        why: object = "the event stream ended"
        try:
            for event in stream:
                _tell(loop, events.put, event)
        except (
            DockerException,
            requests.RequestException,
            HTTPError,
            OSError,
            ValueError,  # cut in the middle of an event, or a number of thousands of digits
            RecursionError,  # nested too deep
            AttributeError,  # urllib3, on a stream that was closed under it
        ) as error:
            why = error
        finally:
            self._streams.discard(stream)
            _tell(loop, events.end, str(self._unavailable(why)))


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[Any], None], argument: object) -> None:
    """From a thread that the loop does not wait for."""
    try:
        loop.call_soon_threadsafe(what, argument)
    except RuntimeError:  # the loop has been closed: nobody listens any more
        return


def _close(stream: Any) -> None:
    """End a stream that another thread reads from."""
    try:
        stream.close()
    except (OSError, AttributeError):  # it has ended already; the SDK looks for its socket in vain
        return


def _running(api: Any) -> Mapping[str, Json | None]:
    found: dict[str, Json | None] = {}
    for id_ in [one["Id"] for one in api.containers()]:
        try:
            if (json := _inspected(api, id_)) is not None:
                found[id_] = json
        except APIError as error:  # about this one only, or the others will say so too
            logger.warning("docker: container %s: %s", id_[:12], error.explanation or error)
            found[id_] = None
    return found


def _inspected(api: Any, id_: str) -> Json | None:
    try:
        found: Json = api.inspect_container(id_)
    except NotFound:
        return None
    return found
