"""Loading rulesets: libnftables in the process, one transaction per call.

The library rather than the `nft` program: no fork per change, and the error text comes back as it is. Its
netlink socket is opened with the context, so the context is made inside the target namespace and thrown away
after the call: kept contexts would keep ended containers' namespaces alive. A text given to `apply`
takes effect as a whole or not at all; that is nftables' own promise for one buffer.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from mesh.errors import KernelError
from mesh.net.netns import NamespaceWorker

LIBRARY = "libnftables.so.1"
MISSING = f"{LIBRARY} is not installed: rules cannot be loaded (Debian, Ubuntu: apt install libnftables1)"
QUOTED_ERROR = 600  # characters of nft's complaint that an error repeats


class Nft:
    """nftables of any namespace, through the worker's thread (the library is not thread-safe)."""

    def __init__(self, worker: NamespaceWorker) -> None:
        self._worker = worker

    async def apply(self, path: str | None, text: str) -> None:
        """Run one transaction in the namespace. KernelError quotes what the kernel refused."""
        await self._worker.run(path, lambda: run(text))

    async def query(self, path: str | None, text: str) -> str:
        """Run a `list …` command and return what it prints."""
        return await self._worker.run(path, lambda: run(text))


def run(text: str) -> str:
    """Run commands in the calling thread's namespace; returns their output. Blocking."""
    library = _library()
    with _context(library) as context:
        if library.nft_run_cmd_from_buffer(context, text.encode()) == 0:
            return (library.nft_ctx_get_output_buffer(context) or b"").decode()
        complaint = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace").strip()
        raise KernelError(f"nftables refused: {complaint[:QUOTED_ERROR] or 'no reason given'}")


@contextmanager
def _context(library: ctypes.CDLL) -> Iterator[int]:
    context = library.nft_ctx_new(0)
    if not context:
        raise KernelError("libnftables gave no context: is the nf_tables kernel module there?")
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        yield context
    finally:
        library.nft_ctx_free(context)


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
