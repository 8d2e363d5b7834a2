"""The process that runs libnftables for a sidecar: `python -m mesh.kernel.netfilter.nft_process FD`.

It has few descriptors, whatever the sidecar has, and can be lost without harm: a fault of the library ends
this process alone, and `nft` starts another one. It imports little, because it stays for as long as the
sidecar does, and ends with it: then the pair of sockets FD has no other end.

Each request has a context of its own, made in the request's namespace. Closing the context's socket may take
20 ms (`libnftables.Context.close`), so a thread does it and nobody waits for it. Nothing of a namespace stays
here: none outlives its container because of us.
"""

import os
import queue
import resource
import signal
import socket
import stat
import sys
import threading

from mesh.errors import KernelError, WireError
from mesh.kernel.netfilter.libnftables import Context
from mesh.kernel.netfilter.nft_messages import MESSAGE_MAX, NftStatus, receive, send
from mesh.net.setns import libc, open_own_namespace, setns

DESCRIPTORS_MAX = 256  # far below FD_SETSIZE (1024); a request needs four
CLOSING_MAX = 64  # sockets that wait to be closed; more of them hold up the next request
LARGE = 65_536  # bytes of rules whose memory is given back: 1.7 MB of them take 90 MB while they load
OPEN = "/proc/self/fd"


class NftServer:
    """Answers requests until the other end of the pair is gone."""

    def __init__(self, pair: socket.socket) -> None:
        self._pair = pair
        self._home = open_own_namespace()
        self._closing = queue.Queue[int](CLOSING_MAX)

    def serve(self) -> None:
        threading.Thread(target=self._close_sockets, daemon=True).start()
        while True:
            try:
                status, text, namespace = receive(self._pair)
                if status is not NftStatus.REQUEST or namespace is None:
                    raise WireError("a request without a namespace")
                self._answer(text, namespace)
            except (EOFError, ConnectionError):
                return

    def _answer(self, text: bytes, namespace: int) -> None:
        before = _sockets()
        try:
            context = self._context_in(namespace)
        except KernelError as error:
            send(self._pair, NftStatus.REFUSED, str(error).encode())
            return
        # As another descriptor the context's socket outlives the context.
        sockets = [os.dup(one) for one in _sockets() - before]
        try:
            output = context.run(text)
            if len(output) > MESSAGE_MAX:
                raise KernelError(f"nftables listed {len(output)} bytes; {MESSAGE_MAX} at most are read")
            send(self._pair, NftStatus.DONE, output)
        except KernelError as error:
            send(self._pair, NftStatus.REFUSED, str(error).encode())
        finally:
            context.close()
            for one in sockets:
                self._closing.put(one)
            if len(text) > LARGE:
                libc.malloc_trim(0)

    def _context_in(self, namespace: int) -> Context:
        try:
            setns(namespace)
        finally:
            os.close(namespace)
        try:
            return Context()
        finally:
            setns(self._home)

    def _close_sockets(self) -> None:
        while True:
            os.close(self._closing.get())


def _sockets() -> set[int]:
    """The descriptors of this process that are sockets."""
    found = set()
    for name in os.listdir(OPEN):
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
        except OSError:
            continue  # that of the listing, or one that was just closed
    return found


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal's goes to all processes; the sidecar decides
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
    NftServer(socket.socket(fileno=int(sys.argv[1]))).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
