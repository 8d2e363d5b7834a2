"""Why a connection to another sidecar failed, in words for the log."""

import asyncio

import aiohttp


def why(error: Exception) -> str:
    """In words that stay the same from one try to the next, so that the log is not filled."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is refused: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect: {error.os_error.strerror or error.os_error}"
    if isinstance(error, aiohttp.ClientPayloadError | asyncio.IncompleteReadError):
        return "the feed ended"
    if isinstance(error, TimeoutError):
        return "no answer"
    return str(error) or type(error).__name__
