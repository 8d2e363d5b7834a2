"""One question to the admin API of the sidecar on this machine."""

import http.client
import json
from typing import Any
from urllib.parse import quote, urlencode

from mesh.errors import MeshError
from sidecar.config import Address

TIMEOUT = 10.0  # seconds: the API answers from memory, or after an upstream's answer
MAX_BYTES = 1 << 30  # of an answer: the catalogue of the largest clusters, and an end to anything else


class AdminError(MeshError):
    """The sidecar is not there, or said no; the message is for the person who asked."""


def get(address: Address, path: str, **query: str) -> dict[str, Any]:
    """The JSON at the path. Raises AdminError."""
    target = quote(path) + (f"?{urlencode(query)}" if query else "")
    # http.client on purpose: urllib would send a loopback request through $http_proxy
    connection = http.client.HTTPConnection(address.host, address.port, timeout=TIMEOUT)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read(MAX_BYTES)
    except ConnectionRefusedError as error:
        raise AdminError(
            f"no sidecar answers on {address}: is it running on this node? (--admin names another address)"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise AdminError(f"no answer from {address}: {error}") from error
    finally:
        connection.close()
    return _checked(address, response.status, body)


def _checked(address: Address, status: int, body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except ValueError as error:
        raise AdminError(f"{address} is not a sidecar's admin address: its answer is not JSON") from error
    if not isinstance(document, dict):
        raise AdminError(f"{address} is not a sidecar's admin address: its answer is no object")
    if status != 200:
        raise AdminError(str(document.get("error", f"{address} answered {status}")))
    return document
