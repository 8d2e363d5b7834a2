"""The HTTP of the ACME library, with limits: its thread asks, aiohttp on the event loop carries it out.

The library speaks through `requests`, which reads a body of any size, waits for ever while single bytes keep
coming, and follows redirects to wherever they lead. An authority is a stranger: what it answers is bounded in
bytes and in seconds, and it is asked at the directory's own origin and nowhere else, whatever addresses its
answers name.
"""

import asyncio
import concurrent.futures
import os
import socket
import ssl
import time
from collections.abc import Mapping

import aiohttp
import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy
from yarl import URL

from mesh.errors import CertificateError
from mesh.parsing import shown

REQUEST_SECONDS = 10.0  # for a whole answer
ORDER_SECONDS = 600.0  # for all requests of an order: 100 names, two looks of 90 s
BODY_MAX = 1024 * 1024  # bytes; a directory has 1 KB, a chain of certificates 10 KB
HANDOVER_SECONDS = 5.0  # beyond an answer's time, for the event loop to say that there is none

WORDS_MAX = 500  # characters of a stranger's words that are passed on

# What aiohttp would add to the library's own header fields.
_NOT_ADDED = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class BoundedHttp(BaseAdapter):
    """Mounted on a `requests` session, for one order. Its `send` raises CertificateError.

    `origin`: the directory's address. `loop` runs the requests; `send` is called on another thread.
    """

    def __init__(self, origin: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._origin = _origin(origin)
        self._loop = loop
        self._trust: ssl.SSLContext | None = None
        self._ends = time.monotonic() + ORDER_SECONDS

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: object = None,
        verify: bool | str = True,
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """`stream`, `timeout` and `cert` are not heeded: the limits are this module's."""
        url = str(request.url)
        if _origin(url) != self._origin:
            raise CertificateError(
                f"names an address that is not its own, which is not asked: {shown(url)}", general=True
            )
        if time.monotonic() > self._ends:
            raise CertificateError(f"takes more than {ORDER_SECONDS:.0f} s for an order")
        if self._trust is None:
            # `verify` is what the environment of `requests` says, or the file of the configuration.
            file = verify if isinstance(verify, str) else DEFAULT_CA_BUNDLE_PATH
            self._trust = ssl.create_default_context(cafile=file)
        proxy = select_proxy(url, dict(proxies or {}))
        asked = asyncio.run_coroutine_threadsafe(self._answer(request, self._trust, proxy), self._loop)
        try:
            return asked.result(REQUEST_SECONDS + HANDOVER_SECONDS)
        except concurrent.futures.CancelledError as error:
            raise CertificateError("is not asked any more") from error
        except TimeoutError as error:
            asked.cancel()
            raise _late() from error

    def close(self) -> None:
        """Each request has a connection of its own, which ends with it."""

    # --- on the event loop ---

    async def _answer(
        self, request: requests.PreparedRequest, trust: ssl.SSLContext, proxy: str | None
    ) -> requests.Response:
        try:
            return await _answer(request, trust, proxy)
        except TimeoutError as error:
            raise _late() from error
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            raise CertificateError(f"cannot be believed: {_reason(error)}", general=True) from error
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, OSError) as error:
            raise CertificateError(f"does not answer: {_reason(error)}", general=True) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise CertificateError(f"answers what is not HTTP: {_reason(error)}", general=True) from error


async def _answer(
    request: requests.PreparedRequest, trust: ssl.SSLContext, proxy: str | None
) -> requests.Response:
    """Raises what aiohttp raises; CertificateError for an answer that is not taken."""
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust, force_close=True),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NOT_ADDED,
            auto_decompress=False,
        ) as session,
        session.request(
            str(request.method),
            URL(str(request.url), encoded=True),
            data=request.body,
            headers={**request.headers, "Accept-Encoding": "identity"},
            allow_redirects=False,
            proxy=proxy,
        ) as response,
    ):
        if 300 <= response.status < 400:
            where = shown(response.headers.get("Location", ""))
            raise CertificateError(f"redirects to {where}, which is not followed", general=True)
        made = requests.Response()
        made.status_code, made.reason = response.status, response.reason or ""
        made.url, made.request = str(request.url), request
        made.headers = CaseInsensitiveDict(
            {
                name: ", ".join(response.headers.getall(name)) for name in response.headers
            }  # RFC 9110, section 5.2
        )
        made._content = await _body(response.content)
        made._content_consumed = True  # type: ignore[attr-defined]
        return made


async def _body(stream: aiohttp.StreamReader) -> bytes:
    data = bytearray()
    async for piece in stream.iter_any():
        data += piece
        if len(data) > BODY_MAX:
            raise CertificateError(f"answers with more than {BODY_MAX} bytes", general=True)
    return bytes(data)


def _late() -> CertificateError:
    return CertificateError(f"does not answer: nothing whole in {REQUEST_SECONDS:.0f} s", general=True)


def _reason(error: Exception) -> str:
    """The system's own words where it has some."""
    cause: BaseException = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    if isinstance(cause, OSError) and cause.errno and not isinstance(cause, socket.gaierror | ssl.SSLError):
        return os.strerror(cause.errno)
    said = error.message if isinstance(error, aiohttp.ClientResponseError) else str(cause)
    return on_one_line(said.partition("\n")[0].rstrip(":") or type(cause).__name__)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port (RFC 6454). CertificateError for what is no URL."""
    try:
        parsed = URL(url)
        return parsed.scheme, parsed.host, parsed.port
    except ValueError as error:
        raise CertificateError(f"names what is no address: {shown(url)}", general=True) from error


def on_one_line(said: object) -> str:
    """What a stranger said, without what would move a terminal's cursor or begin another line of a log. The
    library checks no types, so where a text belongs there may be any JSON."""
    if not isinstance(said, str):
        return f"({type(said).__name__})"
    text = " ".join(said[: 2 * WORDS_MAX].split())[:WORDS_MAX]
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
