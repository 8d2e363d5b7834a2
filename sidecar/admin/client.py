"""One question to the admin API of the sidecar on this machine."""

import http.client
import socket
from typing import Any
from urllib.parse import quote, urlencode

from mesh.errors import MeshError
from mesh.parsing import parse_json
from sidecar.config import ListenAddress, UnixSocket

TIMEOUT = 10.0  # seconds: the API answers from memory, or after an upstream's answer
MAX_BYTES = 1 << 30  # of an answer: the catalogue of the largest clusters, and an end to anything else


class AdminError(MeshError):
    """The sidecar is not there, or said no; the message is for the person who asked."""


class _OverUnix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def get(place: ListenAddress, path: str, **query: str) -> dict[str, Any]:
    """The JSON at the path. Raises AdminError."""
    target = quote(path) + (f"?{urlencode(query)}" if query else "")
    # http.client on purpose: urllib would send a loopback request through $http_proxy
    connection = (
        _OverUnix(place.path)
        if isinstance(place, UnixSocket)
        else http.client.HTTPConnection(place.host, place.port, timeout=TIMEOUT)
    )
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read(MAX_BYTES)
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise AdminError(
            f"no sidecar answers on {place}: is it running on this node? (--admin names another place)"
        ) from error
    except PermissionError as error:
        raise AdminError(f"only the user that runs the sidecar may open {place}") from error
    except (OSError, http.client.HTTPException) as error:
        raise AdminError(f"no answer from {place}: {error}") from error
    finally:
        connection.close()
    return _checked(place, response.status, body)


def _checked(place: ListenAddress, status: int, body: bytes) -> dict[str, Any]:
    try:
        document = parse_json(body)
    except ValueError as error:
        raise AdminError(f"{place} is not a sidecar's admin address: its answer is not JSON") from error
    if not isinstance(document, dict):
        raise AdminError(f"{place} is not a sidecar's admin address: its answer is no object")
    if status != 200:
        raise AdminError(str(document.get("error", f"{place} answered {status}")))
    return document
