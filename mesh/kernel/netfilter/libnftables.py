"""libnftables in this process, one transaction per call, in the namespace that the process is in.

The sidecar itself never calls it: the library waits for the kernel with select(2), which ends the process as
soon as its descriptor is 1024 or more. So it runs in a process with few descriptors (`nft_process`), and
`nft` is how all others reach it.

The library rather than the `nft` program: no process per change, and the error text comes back as it is.
Its netlink socket is opened with the context, so a context is made inside its namespace and belongs to it. A
text given to `run` takes effect as a whole or not at all; that is nftables' own promise for one buffer.
"""

import ctypes
from functools import cache

from mesh.errors import KernelError

LIBRARY = "libnftables.so.1"
MISSING = f"{LIBRARY} is not installed: rules cannot be loaded (Debian, Ubuntu: apt install libnftables1)"
QUOTED_ERROR = 600  # characters of nft's complaint that an error repeats


class Context:
    """nftables of the namespace that the creating thread is in. One thread at a time, and blocking."""

    def __init__(self) -> None:
        self._library = _library()
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise KernelError("libnftables gave no context: is the nf_tables kernel module there?")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def run(self, text: bytes) -> bytes:
        """Run one transaction (or `list …`) and return its output. KernelError quotes the refusal."""
        if self._library.nft_run_cmd_from_buffer(self._context, text) == 0:
            return self._library.nft_ctx_get_output_buffer(self._context) or b""
        complaint = (self._library.nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace")
        raise KernelError(f"nftables refused: {complaint.strip()[:QUOTED_ERROR] or 'no reason given'}")

    def close(self) -> None:
        """Free it, once. After a transaction, closing its socket waits until the kernel has freed what the
        transaction replaced: 7 to 23 ms on 6.18, where the transaction itself takes 1 ms."""
        self._library.nft_ctx_free(self._context)


@cache
def _library() -> ctypes.CDLL:
    """The library with its signatures; they are the same in Debian 12 (1.0.6) and 13 (1.1.3)."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise KernelError(MISSING) from error
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.restype = None
    return library
