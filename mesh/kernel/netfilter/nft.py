"""Loading rulesets with libnftables, one transaction per call. (Loaded tables are changed by `batches`.)

The library runs in a process of its own (`nft_process`), which is handed the text and a descriptor of the
namespace: in a process with many descriptors it ends the process, and a fault of it must not end the sidecar.
The process is started with the first call, or ahead of it by `start`, and anew when it was lost: the call
that it was lost with gets a KernelError, and its caller tries again as after any other.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mesh.errors import KernelError, WireError
from mesh.kernel.netfilter import nft_messages
from mesh.kernel.netfilter.nft_messages import NftStatus
from mesh.net.setns import open_own_namespace

MODULE = "mesh.kernel.netfilter.nft_process"
CALL_SECONDS = 30.0  # for one message of a call; the rules of 5,000 published ports take 2 s to load
END_SECONDS = 2.0  # for the process to end by itself


class NftProcess:
    """The process, as the others see it. Any thread may call; one call at a time, the others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pair: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process unless it is there. KernelError."""
        with self._lock:
            self._connected()

    def run(self, text: str, namespace: int) -> str:
        """One transaction (or `list …`) in the namespace of that descriptor; its output. KernelError quotes
        why it was refused, or says how the process was lost."""
        with self._lock:
            status, answer = self._call(text.encode(), namespace)
        shown = answer.decode(errors="replace")
        if status is NftStatus.DONE:
            return shown
        raise KernelError(shown)

    def close(self) -> None:
        """End the process; the next call starts another one."""
        with self._lock:
            self._end()

    def _call(self, text: bytes, namespace: int) -> tuple[NftStatus, bytes]:
        if len(text) > nft_messages.MESSAGE_MAX:
            raise KernelError(f"rules of {len(text)} bytes; {nft_messages.MESSAGE_MAX} at most are loaded")
        try:
            nft_messages.send(self._connected(), NftStatus.REQUEST, text, namespace)
        except ConnectionError:  # it was lost since the last call, and has begun nothing of this one
            self._end()
            with self._or_lost():
                nft_messages.send(self._connected(), NftStatus.REQUEST, text, namespace)
        with self._or_lost():
            status, answer, _ = nft_messages.receive(self._connected())
        return status, answer

    @contextmanager
    def _or_lost(self) -> Iterator[None]:
        """Whatever cuts a call short, the process is ended: its next answer would be taken for another's."""
        try:
            yield
        except (OSError, EOFError, WireError) as error:
            status = self._end()
            raise KernelError(f"the process that loads rules was lost: {error}; status {status}") from error
        except BaseException:
            self._end()
            raise

    def _connected(self) -> socket.socket:
        if self._pair is None:
            try:
                self._begin()
            except OSError as error:
                raise KernelError(f"the process that loads rules cannot be started: {error}") from error
        assert self._pair is not None
        return self._pair

    def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(CALL_SECONDS)
        try:
            number = theirs.fileno()
            self._process = subprocess.Popen([sys.executable, "-m", MODULE, str(number)], pass_fds=(number,))
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._pair = ours

    def _end(self) -> int | None:
        """The exit status; None: there was no process."""
        pair, self._pair = self._pair, None
        process, self._process = self._process, None
        if pair is not None:
            pair.close()
        if process is None:
            return None
        try:
            return process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


_process = NftProcess()  # one for all of this process: every thread, every namespace


def run(text: str, namespace: int | None = None) -> str:
    """One transaction (or `list …`), in the namespace of that descriptor; None: the calling thread's. Returns
    the output; KernelError quotes why it was refused. Blocks."""
    if namespace is not None:
        return _process.run(text, namespace)
    try:
        own = open_own_namespace()
    except OSError as error:
        raise KernelError(f"rules cannot be loaded: {error}") from error
    try:
        return _process.run(text, own)
    finally:
        os.close(own)


def start() -> None:
    """Start the process ahead of the first call, while there is room for it. KernelError."""
    _process.start()


def close() -> None:
    """End the process; a later call starts another one."""
    _process.close()
