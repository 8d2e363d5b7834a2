"""The boundaries of messages in a stream of bytes, and which descriptors belong to which message. Pure.

A frame is a head (length of the body, number of descriptors), then the body. The sender attaches the
descriptors to the frame's first byte, and the kernel keeps that order: when a head is complete, its
descriptors are there. Whatever else comes is refused: a body over the limit, descriptors that are missing,
and descriptors that no head has announced. So a peer can make us hold one body and one frame's descriptors.
"""

import struct
from collections import deque

from mesh.errors import WireError

HEAD = struct.Struct("!IB")  # length of the body in bytes, number of descriptors
DESCRIPTORS_MAX = 253  # SCM_MAX_FD, linux/net/scm.h: what the kernel takes with one message


def pack_head(body: bytes, descriptors: int = 0) -> bytes:
    return HEAD.pack(len(body), descriptors)


class FrameReader:
    """Takes what arrives, gives whole frames. The descriptors it holds belong to its owner: see `left`."""

    def __init__(self, body_max: int, descriptors_max: int = DESCRIPTORS_MAX) -> None:
        self._body_max = body_max
        self._descriptors_max = descriptors_max
        self._bytes = bytearray()
        self._descriptors = deque[int]()

    def feed(self, data: bytes, descriptors: list[int] | tuple[int, ...] = ()) -> None:
        """Raises WireError when more descriptors came than one frame may have. They are held all the same, so
        that they can be closed."""
        self._bytes += data
        self._descriptors.extend(descriptors)
        if len(self._descriptors) > self._descriptors_max:
            raise WireError(f"more than {self._descriptors_max} descriptors")

    def next(self) -> tuple[bytes, tuple[int, ...]] | None:
        """The next frame's body and descriptors; None while it is not whole. Raises WireError."""
        if len(self._bytes) < HEAD.size:
            return None
        length, count = HEAD.unpack_from(self._bytes)
        if length > self._body_max:
            raise WireError(f"a message of {length} bytes; {self._body_max} are allowed")
        if count > len(self._descriptors):
            raise WireError(f"{count} descriptors announced, {len(self._descriptors)} came")
        end = HEAD.size + length
        if len(self._bytes) < end:
            return None
        body = bytes(self._bytes[HEAD.size : end])
        del self._bytes[:end]
        taken = tuple(self._descriptors.popleft() for _ in range(count))
        if self._descriptors and not self._bytes:  # they came with this frame, which did not announce them
            self._descriptors.extendleft(reversed(taken))
            raise WireError(f"{len(self._descriptors)} descriptors came, {count} were announced")
        return body, taken

    def left(self) -> tuple[int, ...]:
        """Descriptors of frames that are not whole. The caller closes them; nothing is held afterwards."""
        left = tuple(self._descriptors)
        self._descriptors.clear()
        return left
