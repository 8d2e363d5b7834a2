"""What a non-blocking socket raises when it can do no more for now, plain or with TLS."""

import ssl

WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
