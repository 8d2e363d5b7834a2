"""What a non-blocking socket raises when it can do no more for now, plain or with TLS."""

import socket
import ssl
from contextlib import suppress

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def end_records(sock: socket.socket) -> None:
    """TLS: what we said ends here, and was not cut off (close_notify)."""
    if isinstance(sock, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            sock.unwrap()
