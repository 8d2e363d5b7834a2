"""One HTTP/2 connection as frames: bytes in, calls on its side; calls, bytes out. No I/O (RFC 9113).

hyperframe reads and writes frames, hpack the blocks of fields; what is here is what they mean: which streams
there are, how much each side may send, when it is over. The library h2 does all of this too, but for it a
GOAWAY ends the connection, sent or received, with the streams that are still open. A proxy has to let them
finish.

A frame that achieves nothing (a ping, a reset of what was just asked for) costs the peer something of a
budget (`frame_budget`). Whoever has spent it is told to be calm, and cut off.

Flow control: a stream's window bounds what of it can be held here, so it is opened again when that is done
with (`consumed`). The connection's window bounds nothing but what is on its way, and is opened again as soon
as bytes have come: a stream whose reader pauses keeps nothing that the others need. A stream begins with a
small window, which grows as long as its bytes are taken and the connection has some of its `GROWTH` left.
"""

from collections.abc import Callable
from enum import IntEnum
from struct import Struct
from time import monotonic
from typing import Any, Protocol

from hpack import HPACKError, OversizedHeaderListError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from mesh.errors import WireError
from mesh.http.codec.frame_budget import PER_REQUEST, SENT_MIN, SMALL, FrameBudget, cost_of_data
from mesh.http.codec.hpack import Decoding, Encoding, Fields

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

FRAME_MAX = 16 * 1024  # of a frame's payload: what every peer must take, and all that we do
FIRST_WINDOW = (
    64 * 1024
)  # that a stream may send ahead of us at first: RFC 9113's own, and all of most bodies
WINDOW = 256 * 1024  # the same for one whose bytes are taken as they come: 20 Mbit/s at 100 ms
GROWTH = (
    4 * 1024 * 1024
)  # by which the windows of one connection's streams together may be larger than at first
CONNECTION_WINDOW = 1024 * 1024  # on its way to us, of all streams of a connection
STREAMS_MAX = 128  # requests of one connection under way
FIELDS_BYTES_MAX = 64 * 1024  # of a block of fields, coded and decoded
CONTINUATIONS_MAX = 16  # frames after the one that begins a block
TABLE_MAX = 4096  # bytes of the compression's memory, each way

WORK_AT_ONCE = 512  # of one connection, then it is the turn of others: some milliseconds
HEAD_WORK = 3  # a request takes us as long as some frames; and for each so many bytes of its fields one more
BYTES_PER_WORK = 512
SETTINGS_PER_FRAME = 8  # settings that cost as much as a frame that achieves nothing

_FIRST_WINDOW = 65_535  # RFC 9113 section 6.9.2
_WINDOW_MAX = 2**31 - 1
_LAST_ID = 2**31 - 1
_HEAD = Struct(">HBBBL")  # length (24 bits), type, flags, stream
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x4, 0x8, 0x20
_DATA, _HEADERS = 0x0, 0x1


class Code(IntEnum):
    """RFC 9113 section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    ENHANCE_YOUR_CALM = 0xB


class H2Broken(WireError):
    """The connection cannot go on."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stream:
    __slots__ = ("ended_in", "ended_out", "id", "left", "returned", "room", "window")

    def __init__(self, id_: int, room: int) -> None:
        self.id = id_
        self.room = room  # bytes that the peer takes
        self.window = FIRST_WINDOW  # bytes that it may send ahead of us
        self.left = FIRST_WINDOW  # bytes that it may still send
        self.returned = 0  # consumed; the peer has not been told yet
        self.ended_in = False  # the peer has said all
        self.ended_out = False  # we have


class H2Side(Protocol):
    """Whose connection it is."""

    def opened(self, stream: Stream, fields: Fields, ended: bool) -> None:
        """A request (to a server)."""
        ...

    def headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        """A response's head, an interim one, or trailers."""
        ...

    def data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """Give it back with `consumed`, when it is held no longer."""
        ...

    def was_reset(self, stream: Stream, code: int) -> None:
        """By the peer, or by us for its fault. It is no more."""
        ...

    def room(self, stream: Stream | None) -> None:
        """The peer takes more of this stream; None: of any."""
        ...

    def going_away(self, last: int) -> None:
        """The peer takes no streams after this one."""
        ...

    def ponged(self) -> None: ...


class Wire:
    """Call `start` first; take `out` and clear it whenever it is time to send."""

    def __init__(self, side: H2Side, *, client: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self._side = side
        self._client = client
        self.out = bytearray()
        self.streams: dict[int, Stream] = {}
        self.highest = 0  # stream that the peer has opened
        self.streams_max = 100  # that the peer takes; until it says otherwise
        self._work = 0  # frames that came, and what stands for as many
        self._next = 1
        self._accept = _LAST_ID  # the last stream that we take
        self._got = b""
        self._preface = not client
        self._settled = False  # the peer's SETTINGS have come
        self._decoding = Decoding(FIELDS_BYTES_MAX)
        self._encoding = Encoding()
        self._block_of = 0  # the stream whose block of fields is coming in; 0: none
        self._block_ends = False  # it is all that the peer says on that stream
        self._block: list[bytes] = []
        self._block_size = 0
        self._room = _FIRST_WINDOW
        self._room_of_new = _FIRST_WINDOW
        self._frame_max = FRAME_MAX
        self._growth = GROWTH  # of the streams' windows, that is left
        self._returned = 0  # came on any stream; the peer has not been told yet
        self._pings = self._settings_sent = 0  # of ours, that were not acknowledged yet
        self._budget = FrameBudget(clock)
        self._handlers: dict[int, Callable[[Any], None]] = {
            _DATA: self._data,
            _HEADERS: self._headers,
            0x2: self._nothing,  # PRIORITY, which RFC 9113 section 5.3 has given up
            0x3: self._reset,
            0x4: self._settings,
            0x5: self._push,
            0x6: self._ping,
            0x7: self._goaway,
            0x8: self._window,
            0x9: self._continuation,
        }

    # --- in ---

    @property
    def in_block(self) -> bool:
        """Has a block of fields begun that is not whole? The client's time for it runs."""
        return self._block_of != 0 or self._preface

    @property
    def unfinished(self) -> int:
        """Bytes that came of frames and of a block of fields that are not whole."""
        return len(self._got) + self._block_size

    def receive(self, data: bytes, most: int = 2**31) -> bool:
        """At most so much work, in frames. True: there may be more of them; call again, with what comes next
        or with nothing. Raises Broken."""
        if self._got:
            data = self._got + data
        at, end = 0, len(data)
        if self._preface:
            if not PREFACE.startswith(data[:24]) and not data.startswith(PREFACE):
                raise H2Broken(Code.PROTOCOL_ERROR, "not HTTP/2's preface")
            if end < len(PREFACE):
                self._got = data
                return False
            self._preface = False
            at = len(PREFACE)
        last = self._work + most
        while end - at >= 9 and self._work < last:
            high, low, kind, flags, id_ = _HEAD.unpack_from(data, at)
            length = high << 8 | low
            if length > FRAME_MAX:
                raise H2Broken(Code.FRAME_SIZE_ERROR, "a frame larger than was allowed")
            if end - at - 9 < length:
                break
            begin, at = at, at + 9 + length
            self._work += 1
            if not self._settled and kind != SettingsFrame.type:
                raise H2Broken(Code.PROTOCOL_ERROR, "no SETTINGS at the beginning")
            if self._block_of and kind != ContinuationFrame.type:
                raise H2Broken(Code.PROTOCOL_ERROR, "a frame within a block of fields")
            if kind > _HEADERS or flags & (_PADDED | _PRIORITY) or not id_ & _LAST_ID:
                self._frame(data[begin:at])
            elif (
                kind == _HEADERS
            ):  # nearly all frames are these two, and plain: that is faster than hyperframe
                self._head(id_ & _LAST_ID, flags, data[begin + 9 : at])
            else:
                self._body(id_ & _LAST_ID, data[begin + 9 : at], length, flags & _END_STREAM != 0)
        self._got = data[at:]
        return self._work >= last and end - at >= 9

    def _frame(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            frame, _ = Frame.parse_frame_header(view[:9])
            frame.parse_body(view[9:])
        except HyperframeError as error:
            raise H2Broken(Code.FRAME_SIZE_ERROR, f"a malformed frame: {error}") from error
        handler = self._handlers.get(frame.type) if frame.type is not None else None
        if handler is None:
            self._spend(1)  # unknown ones are read over: section 4.1
        else:
            handler(frame)

    def _headers(self, frame: HeadersFrame) -> None:
        if "PRIORITY" in frame.flags and frame.depends_on == frame.stream_id:
            raise H2Broken(Code.PROTOCOL_ERROR, "a stream that depends on itself")
        flags = _END_STREAM if "END_STREAM" in frame.flags else 0
        self._head(frame.stream_id, flags | (_END_HEADERS if "END_HEADERS" in frame.flags else 0), frame.data)

    def _head(self, id_: int, flags: int, block: bytes) -> None:
        """A HEADERS frame without what may surround its block."""
        self._block_ends = flags & _END_STREAM != 0
        if flags & _END_HEADERS:
            self._whole_block(id_, block)
        else:
            self._block_of = id_
            self._block = [block]
            self._block_size = len(block)

    def _continuation(self, frame: ContinuationFrame) -> None:
        if not self._block_of or self._block_of != frame.stream_id:
            raise H2Broken(Code.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block.append(frame.data)
        self._block_size += len(frame.data)
        if len(self._block) > CONTINUATIONS_MAX or self._block_size > FIELDS_BYTES_MAX:
            raise H2Broken(Code.ENHANCE_YOUR_CALM, "a block of fields without an end")
        if "END_HEADERS" in frame.flags:
            id_, block = self._block_of, b"".join(self._block)
            self._block_of = 0
            self._block = []
            self._block_size = 0
            self._whole_block(id_, block)

    def _whole_block(self, id_: int, block: bytes) -> None:
        try:
            fields = self._decoding.decode(block)
        except OversizedHeaderListError as error:
            raise H2Broken(Code.ENHANCE_YOUR_CALM, "too many fields") from error
        except HPACKError as error:
            raise H2Broken(Code.COMPRESSION_ERROR, f"fields that cannot be decoded: {error}") from error
        self._work += HEAD_WORK + self._decoding.decoded // BYTES_PER_WORK
        if not self._budget.spend_on_head(len(block), self._decoding.decoded):
            raise H2Broken(Code.ENHANCE_YOUR_CALM, "too many fields that were only named")
        ended, stream = self._block_ends, self.streams.get(id_)
        if stream is None:
            self._new(id_, fields, ended)
        elif stream.ended_in:
            self.fail(stream, Code.STREAM_CLOSED)
        elif not self._client and not ended:
            self.fail(stream, Code.PROTOCOL_ERROR)  # trailers are the end: section 8.1
        else:
            if not ended:
                self._spend(1)  # an interim response could come for ever
            stream.ended_in = ended
            self._side.headers(stream, fields, ended)
            self._over_if_ended(stream)

    def _new(self, id_: int, fields: Fields, ended: bool) -> None:
        if self._client or id_ % 2 == 0:
            self._check_known(id_)
            return
        if id_ <= self.highest:
            self._spend(1)  # trailers, sent before the peer knew that the stream was reset
            return
        self.highest = id_
        if id_ > self._accept:
            return  # section 6.8: it has been told
        if len(self.streams) >= STREAMS_MAX:
            self._spend(1)
            self.out += RstStreamFrame(id_, Code.REFUSED_STREAM).serialize()
            return
        stream = self.streams[id_] = Stream(id_, self._room_of_new)
        stream.ended_in = ended
        self._side.opened(stream, fields, ended)
        self._over_if_ended(stream)

    def _data(self, frame: DataFrame) -> None:
        ended = "END_STREAM" in frame.flags
        self._body(frame.stream_id, frame.data, frame.flow_controlled_length, ended)

    def _body(self, id_: int, data: bytes, size: int, ended: bool) -> None:
        """A DATA frame without its padding. `size`: bytes that flow control counts, padding included."""
        self._give_back(size)
        stream, payload = self.streams.get(id_), len(data)
        if stream is None:
            self._check_known(id_)
            self._spend(cost_of_data(payload))
            return
        if stream.ended_in:
            self.fail(stream, Code.STREAM_CLOSED)
            return
        stream.left -= size
        if stream.left < 0:
            self.fail(stream, Code.FLOW_CONTROL_ERROR)
            return
        stream.ended_in = ended
        self._budget.useful_bytes += payload
        if payload < SMALL and not ended:
            self._spend(cost_of_data(payload))
        if size > payload:
            self.consumed(stream, size - payload)  # padding
        self._side.data(stream, data, ended)
        self._over_if_ended(stream)

    def _reset(self, frame: RstStreamFrame) -> None:
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            self._check_known(frame.stream_id)
            self._spend(1)
            return
        if not self._client:
            self._spend(PER_REQUEST)
        self._drop(stream)
        self._side.was_reset(stream, frame.error_code)

    def _settings(self, frame: SettingsFrame) -> None:
        if "ACK" in frame.flags:
            if self._settings_sent:
                self._settings_sent -= 1
            else:
                self._spend(1)
            return
        self._settled = True
        for name, value in frame.settings.items():
            if name == SettingsFrame.HEADER_TABLE_SIZE:
                self._encoding.limit(min(value, TABLE_MAX))
            elif name == SettingsFrame.ENABLE_PUSH:
                if value not in (0, 1) or (self._client and value):
                    raise H2Broken(Code.PROTOCOL_ERROR, "ENABLE_PUSH is malformed")
            elif name == SettingsFrame.MAX_CONCURRENT_STREAMS:
                self.streams_max = value
            elif name == SettingsFrame.INITIAL_WINDOW_SIZE:
                self._first_window(value)
            elif name == SettingsFrame.MAX_FRAME_SIZE:
                if not 16_384 <= value < 2**24:
                    raise H2Broken(Code.PROTOCOL_ERROR, "MAX_FRAME_SIZE is out of range")
                self._frame_max = min(value, 64 * 1024)
        self.out += SettingsFrame(0, flags=["ACK"]).serialize()
        self._spend(1 + len(frame.settings) / SETTINGS_PER_FRAME)
        self._side.room(None)

    def _first_window(self, value: int) -> None:
        if value > _WINDOW_MAX:
            raise H2Broken(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is out of range")
        more, self._room_of_new = value - self._room_of_new, value
        for stream in self.streams.values():
            stream.room += more
            if stream.room > _WINDOW_MAX:
                raise H2Broken(Code.FLOW_CONTROL_ERROR, "a window is too large")

    def _push(self, _: Frame) -> None:
        raise H2Broken(Code.PROTOCOL_ERROR, "PUSH_PROMISE, which was not allowed")

    def _nothing(self, _: Frame) -> None:
        self._spend(1)

    def _ping(self, frame: PingFrame) -> None:
        if "ACK" in frame.flags:
            if self._pings:
                self._pings -= 1
                self._side.ponged()
            else:
                self._spend(1)
            return
        self.out += PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize()
        self._spend(1)

    def _goaway(self, frame: GoAwayFrame) -> None:
        self._spend(1)
        self._side.going_away(frame.last_stream_id)

    def _window(self, frame: WindowUpdateFrame) -> None:
        self._spend(1)
        more = frame.window_increment
        if not frame.stream_id:
            self._room += more
            if self._room > _WINDOW_MAX:
                raise H2Broken(Code.FLOW_CONTROL_ERROR, "the connection's window is too large")
            self._side.room(None)
            return
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            self._check_known(frame.stream_id)
            return
        stream.room += more
        if stream.room > _WINDOW_MAX:
            self.fail(stream, Code.FLOW_CONTROL_ERROR)
        else:
            self._side.room(stream)

    def _check_known(self, id_: int) -> None:
        """Frames for a stream that is no more may still come; not for one that never was (section 5.1)."""
        ours = bool(id_ % 2) == self._client
        if id_ >= self._next if ours else id_ > self.highest:
            raise H2Broken(Code.PROTOCOL_ERROR, "a frame of a stream that was never opened")

    def _spend(self, cost: float) -> None:
        if not self._budget.spend(cost):
            raise H2Broken(Code.ENHANCE_YOUR_CALM, "too many frames that achieve nothing")

    # --- out ---

    def start(self) -> None:
        """What each side says first."""
        settings = {
            SettingsFrame.INITIAL_WINDOW_SIZE: FIRST_WINDOW,
            SettingsFrame.MAX_HEADER_LIST_SIZE: FIELDS_BYTES_MAX,
        }
        if self._client:
            self.out += PREFACE
            settings[SettingsFrame.ENABLE_PUSH] = 0
        else:
            settings[SettingsFrame.MAX_CONCURRENT_STREAMS] = STREAMS_MAX
        self.out += SettingsFrame(0, settings).serialize()
        self._settings_sent += 1
        self.out += WindowUpdateFrame(0, CONNECTION_WINDOW - _FIRST_WINDOW).serialize()

    def open(self, fields: list[tuple[bytes, bytes]], ended: bool) -> Stream:
        """A request, to a server."""
        stream = self.streams[self._next] = Stream(self._next, self._room_of_new)
        self._next += 2
        self.send_headers(stream, fields, ended)
        return stream

    @property
    def exhausted(self) -> bool:
        """There are no numbers left for new streams."""
        return self._next > _LAST_ID - 2

    @property
    def has_room(self) -> bool:
        """Does the peer take more bytes of bodies, of any stream?"""
        return self._room > 0

    def send_headers(self, stream: Stream, fields: list[tuple[bytes, bytes]], ended: bool) -> None:
        block = self._encoding.encode(fields)
        id_, most = stream.id, self._frame_max
        flags = _END_STREAM if ended else 0
        if len(block) <= most:
            self._put(0x1, flags | _END_HEADERS, id_, block)
        else:
            self._put(0x1, flags, id_, block[:most])
            for at in range(most, len(block), most):
                last = at + most >= len(block)
                self._put(0x9, _END_HEADERS if last else 0, id_, block[at : at + most])
        if ended:
            self._ended(stream)

    def send_data(self, stream: Stream, data: bytes, ended: bool) -> int:
        """As much of it as the peer takes; how much that was. `ended`: the stream ends with it."""
        most = min(len(data), max(stream.room, 0), self._room)
        stream.room -= most
        self._room -= most
        ended = ended and most == len(data)
        whole = self._frame_max
        if most == len(data) or most >= SENT_MIN:
            self._budget.frames_sent += 1 + most // whole
        at = 0
        while at < most:
            piece = data[at : min(at + whole, most)] if most != len(data) or most > whole else data
            at += len(piece)
            self._put(0x0, _END_STREAM if ended and at == most else 0, stream.id, piece)
        if ended:
            if not data:
                self._put(0x0, _END_STREAM, stream.id, b"")
            self._ended(stream)
        return most

    def _put(self, kind: int, flags: int, id_: int, payload: bytes) -> None:
        size = len(payload)
        self.out += _HEAD.pack(size >> 8, size & 0xFF, kind, flags, id_)
        self.out += payload

    def consumed(self, stream: Stream, size: int) -> None:
        """So much of what came is done with: the peer may send as much again."""
        stream.returned += size
        if stream.returned >= stream.window // 2 and not stream.ended_in and stream.id in self.streams:
            grown = min(stream.window, WINDOW - stream.window, self._growth)
            self._growth -= grown
            stream.window += grown
            more, stream.returned = stream.returned + grown, 0
            stream.left += more
            self.out += WindowUpdateFrame(stream.id, more).serialize()

    def _give_back(self, size: int) -> None:
        self._returned += size
        if self._returned >= CONNECTION_WINDOW // 2:
            self.out += WindowUpdateFrame(0, self._returned).serialize()
            self._returned = 0

    def cancel(self, stream: Stream, code: Code) -> None:
        """End it from here, if it has not ended."""
        if stream.id in self.streams:
            self.out += RstStreamFrame(stream.id, code).serialize()
            self._drop(stream)

    def refuse(self, stream: Stream) -> None:
        """A request that is not looked at: the peer may send it again."""
        self._spend(1)
        self.cancel(stream, Code.REFUSED_STREAM)

    def fail(self, stream: Stream, code: Code) -> None:
        """As `cancel`, for a fault of the peer's: the side is told."""
        self._spend(1)
        self.cancel(stream, code)
        self._side.was_reset(stream, code)

    def go_away(self, code: Code = Code.NO_ERROR, *, at_once: bool = True) -> None:
        """Take no more streams. Not `at_once`: only say so; those that are on their way are still taken."""
        last = self.highest if at_once else _LAST_ID
        self._accept = min(self._accept, last)
        self.out += GoAwayFrame(0, self._accept, code).serialize()

    def ping(self) -> None:
        """`ponged` when all that was sent before it has arrived."""
        self._pings += 1
        self.out += PingFrame(0, b"\0" * 8).serialize()

    def _ended(self, stream: Stream) -> None:
        stream.ended_out = True
        self._over_if_ended(stream)

    def _over_if_ended(self, stream: Stream) -> None:
        if stream.ended_in and stream.ended_out and stream.id in self.streams:
            self._drop(stream)
            self._budget.gain(PER_REQUEST)

    def _drop(self, stream: Stream) -> None:
        del self.streams[stream.id]
        self._growth += stream.window - FIRST_WINDOW
