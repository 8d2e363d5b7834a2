"""What a non-blocking socket raises when it can do no more for now, plain or with TLS."""

import fcntl
import socket
import ssl
import sys
import termios
from contextlib import suppress

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def unsent(sock: socket.socket) -> int:
    """Bytes in the kernel that the other side has not acknowledged."""
    try:
        return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def end_records(sock: socket.socket) -> None:
    """TLS: what we said ends here, and was not cut off (close_notify)."""
    if isinstance(sock, ssl.SSLSocket):
        with suppress(OSError, ValueError):
            sock.unwrap()
