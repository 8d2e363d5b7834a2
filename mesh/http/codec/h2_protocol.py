"""One HTTP/2 connection without a socket (RFC 9113): bytes in, callbacks out; calls in, bytes out.

The libraries hyperframe and hpack read and write frames and blocks of fields. This module knows what they
mean: which streams are open, how much each side may send, when the connection ends. The library h2 does the
same, but there a GOAWAY, sent or received, ends the connection with all open streams. A proxy has to let them
finish.

A frame that achieves nothing (a ping, the reset of a new request) costs the peer part of a budget
(`frame_budget`). A peer that has spent it gets ENHANCE_YOUR_CALM, and the connection ends.

Flow control: a stream's window limits how many of its bytes are held here, so it is opened again when they
are passed on (`consumed`). The connection's window limits only what is on its way, and is opened again as
soon as bytes have come: a stream whose reader pauses takes nothing from the others. A stream begins with a
small window. It grows as long as the stream's bytes are passed on and the connection has some of its `GROWTH`
left.
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

FRAME_MAX = 16 * 1024  # bytes of a frame's payload that are accepted: the least that RFC 9113 allows
FIRST_WINDOW = 64 * 1024  # bytes that a new stream may send: RFC 9113's default, and all of most bodies
WINDOW = 256 * 1024  # bytes for a stream whose data is passed on as it comes: 20 Mbit/s at 100 ms
GROWTH = 4 * 1024 * 1024  # bytes by which the windows of one connection's streams may grow together
CONNECTION_WINDOW = 1024 * 1024  # bytes on their way here, of all streams of a connection
STREAMS_MAX = 128  # concurrent requests of one connection
FIELDS_BYTES_MAX = 64 * 1024  # of a block of fields, coded and decoded
CONTINUATIONS_MAX = 16  # frames after the one that begins a block
TABLE_MAX = 4096  # bytes of HPACK's dynamic table, each way

# Work is counted in frames.
WORK_AT_ONCE = 512  # of one connection, then it is the turn of others: some milliseconds
HEAD_WORK = 3  # a head takes as long as so many frames,
BYTES_PER_WORK = 512  # and for each so many bytes of its fields one more
SETTINGS_PER_FRAME = 8  # settings that cost as much as a frame that achieves nothing

_FIRST_WINDOW = 65_535  # RFC 9113 section 6.9.2
_WINDOW_MAX = 2**31 - 1
_LAST_ID = 2**31 - 1
_HEAD = Struct(">HBBBL")  # length (24 bits), type, flags, stream
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x4, 0x8, 0x20
_DATA, _HEADERS = 0x0, 0x1


class Code(IntEnum):
    """Error codes: RFC 9113 section 7."""

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
    """The peer has broken the protocol: the connection ends with this code."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stream:
    """The state of one stream."""

    __slots__ = ("consumed", "ended_in", "ended_out", "id", "receive_left", "receive_window", "send_window")

    def __init__(self, id_: int, send_window: int) -> None:
        self.id = id_
        self.send_window = send_window  # bytes that the peer accepts
        self.receive_window = FIRST_WINDOW  # bytes that the peer may send before any is passed on
        self.receive_left = FIRST_WINDOW  # bytes that the peer may still send
        self.consumed = 0  # bytes that were passed on; no WINDOW_UPDATE has been sent for them
        self.ended_in = False  # the peer has sent END_STREAM
        self.ended_out = False  # this side has


class H2Side(Protocol):
    """Callbacks of the connection."""

    def on_request(self, stream: Stream, fields: Fields, ended: bool) -> None:
        """A server gets a request."""
        ...

    def on_headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        """A client gets a response's head, perhaps an interim one; either side gets trailers."""
        ...

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        """Part of a body. Call `consumed` when it is held no longer."""
        ...

    def on_reset(self, stream: Stream, code: int) -> None:
        """The stream was reset, by the peer or for a fault of the peer. It does not exist any more."""
        ...

    def on_window(self, stream: Stream | None) -> None:
        """The peer accepts more bytes of this stream; None: of any stream."""
        ...

    def on_goaway(self, last: int) -> None:
        """The peer accepts no streams after the one with this number."""
        ...

    def on_pong(self) -> None:
        """All that was sent before the last `ping` has arrived."""
        ...


class H2Protocol:
    """Call `start` first. Send what is in `out`, and clear it, after each call."""

    def __init__(self, side: H2Side, *, client: bool = False, clock: Callable[[], float] = monotonic) -> None:
        self._side = side
        self._client = client
        self.out = bytearray()
        self.streams: dict[int, Stream] = {}
        self.highest = 0  # number of the last stream that the peer has opened
        self.streams_max = 100  # concurrent streams that the peer accepts; until its SETTINGS have come
        self._work = 0  # done so far
        self._next = 1
        self._last_accepted = _LAST_ID  # number of the last stream that is accepted
        self._buffer = b""
        self._preface = not client
        self._settled = False  # the peer's SETTINGS have come
        self._decoding = Decoding(FIELDS_BYTES_MAX)
        self._encoding = Encoding()
        self._block_stream = 0  # number of the stream whose block of fields is incomplete; 0: none
        self._block_ends = False  # the stream ends with the block
        self._block: list[bytes] = []
        self._block_size = 0
        self._send_window = _FIRST_WINDOW
        self._initial_window = _FIRST_WINDOW
        self._frame_max = FRAME_MAX
        self._growth = GROWTH  # bytes by which streams' windows may still grow
        self._received = 0  # bytes that came on any stream; no WINDOW_UPDATE has been sent for them
        self._pings = self._settings_sent = 0  # sent, not acknowledged
        self._budget = FrameBudget(clock)
        self._handlers: dict[int, Callable[[Any], None]] = {
            _DATA: self._data,
            _HEADERS: self._headers,
            0x2: self._ignore,  # PRIORITY: RFC 9113 section 5.3 has deprecated it
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
        """A block of fields, or the preface, is incomplete: a time limit for it runs."""
        return self._block_stream != 0 or self._preface

    @property
    def unfinished(self) -> int:
        """Bytes of frames and of a block of fields that are incomplete."""
        return len(self._buffer) + self._block_size

    def receive(self, data: bytes, work_max: int = 2**31) -> bool:
        """Processes frames, until about `work_max` of work is done. True: there may be more complete frames;
        call again, with what comes next or with b"". Raises H2Broken."""
        if self._buffer:
            data = self._buffer + data
        at, end = 0, len(data)
        if self._preface:
            if not PREFACE.startswith(data[:24]) and not data.startswith(PREFACE):
                raise H2Broken(Code.PROTOCOL_ERROR, "not HTTP/2's preface")
            if end < len(PREFACE):
                self._buffer = data
                return False
            self._preface = False
            at = len(PREFACE)
        last = self._work + work_max
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
            if self._block_stream and kind != ContinuationFrame.type:
                raise H2Broken(Code.PROTOCOL_ERROR, "a frame within a block of fields")
            if kind > _HEADERS or flags & (_PADDED | _PRIORITY) or not id_ & _LAST_ID:
                self._frame(data[begin:at])
            elif kind == _HEADERS:  # nearly all frames are of these two kinds: this is faster than hyperframe
                self._head(id_ & _LAST_ID, flags, data[begin + 9 : at])
            else:
                self._body(id_ & _LAST_ID, data[begin + 9 : at], length, flags & _END_STREAM != 0)
        self._buffer = data[at:]
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
            self._spend(1)  # unknown kinds are ignored: RFC 9113 section 4.1
        else:
            handler(frame)

    def _headers(self, frame: HeadersFrame) -> None:
        if "PRIORITY" in frame.flags and frame.depends_on == frame.stream_id:
            raise H2Broken(Code.PROTOCOL_ERROR, "a stream that depends on itself")
        flags = _END_STREAM if "END_STREAM" in frame.flags else 0
        self._head(frame.stream_id, flags | (_END_HEADERS if "END_HEADERS" in frame.flags else 0), frame.data)

    def _head(self, id_: int, flags: int, block: bytes) -> None:
        """A HEADERS frame: `block` is its payload without padding and priority."""
        self._block_ends = flags & _END_STREAM != 0
        if flags & _END_HEADERS:
            self._on_block(id_, block)
        else:
            self._block_stream = id_
            self._block = [block]
            self._block_size = len(block)

    def _continuation(self, frame: ContinuationFrame) -> None:
        if not self._block_stream or self._block_stream != frame.stream_id:
            raise H2Broken(Code.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block.append(frame.data)
        self._block_size += len(frame.data)
        if len(self._block) > CONTINUATIONS_MAX or self._block_size > FIELDS_BYTES_MAX:
            raise H2Broken(Code.ENHANCE_YOUR_CALM, "a block of fields without an end")
        if "END_HEADERS" in frame.flags:
            id_, block = self._block_stream, b"".join(self._block)
            self._block_stream = 0
            self._block = []
            self._block_size = 0
            self._on_block(id_, block)

    def _on_block(self, id_: int, block: bytes) -> None:
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
            self.fail(stream, Code.PROTOCOL_ERROR)  # trailers end the stream: RFC 9113 section 8.1
        else:
            if not ended:
                self._spend(1)  # or interim responses could come without an end
            stream.ended_in = ended
            self._side.on_headers(stream, fields, ended)
            self._close_if_ended(stream)

    def _new(self, id_: int, fields: Fields, ended: bool) -> None:
        if self._client or id_ % 2 == 0:
            self._check_known(id_)
            return
        if id_ <= self.highest:
            self._spend(1)  # trailers, sent before the peer knew of the stream's reset
            return
        self.highest = id_
        if id_ > self._last_accepted:
            return  # it is after the last one that GOAWAY named: RFC 9113 section 6.8
        if len(self.streams) >= STREAMS_MAX:
            self._spend(1)
            self.out += RstStreamFrame(id_, Code.REFUSED_STREAM).serialize()
            return
        stream = self.streams[id_] = Stream(id_, self._initial_window)
        stream.ended_in = ended
        self._side.on_request(stream, fields, ended)
        self._close_if_ended(stream)

    def _data(self, frame: DataFrame) -> None:
        ended = "END_STREAM" in frame.flags
        self._body(frame.stream_id, frame.data, frame.flow_controlled_length, ended)

    def _body(self, id_: int, data: bytes, size: int, ended: bool) -> None:
        """A DATA frame: `data` is its payload without padding, `size` the bytes that flow control counts."""
        self._count_received(size)
        stream, payload = self.streams.get(id_), len(data)
        if stream is None:
            self._check_known(id_)
            self._spend(cost_of_data(payload))
            return
        if stream.ended_in:
            self.fail(stream, Code.STREAM_CLOSED)
            return
        stream.receive_left -= size
        if stream.receive_left < 0:
            self.fail(stream, Code.FLOW_CONTROL_ERROR)
            return
        stream.ended_in = ended
        self._budget.useful_bytes += payload
        if payload < SMALL and not ended:
            self._spend(cost_of_data(payload))
        if size > payload:
            self.consumed(stream, size - payload)  # padding
        self._side.on_data(stream, data, ended)
        self._close_if_ended(stream)

    def _reset(self, frame: RstStreamFrame) -> None:
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            self._check_known(frame.stream_id)
            self._spend(1)
            return
        if not self._client:
            self._spend(PER_REQUEST)
        self._drop(stream)
        self._side.on_reset(stream, frame.error_code)

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
        self._side.on_window(None)

    def _first_window(self, value: int) -> None:
        if value > _WINDOW_MAX:
            raise H2Broken(Code.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is out of range")
        more, self._initial_window = value - self._initial_window, value
        for stream in self.streams.values():
            stream.send_window += more
            if stream.send_window > _WINDOW_MAX:
                raise H2Broken(Code.FLOW_CONTROL_ERROR, "a window is too large")

    def _push(self, _: Frame) -> None:
        raise H2Broken(Code.PROTOCOL_ERROR, "PUSH_PROMISE, which was not allowed")

    def _ignore(self, _: Frame) -> None:
        self._spend(1)

    def _ping(self, frame: PingFrame) -> None:
        if "ACK" in frame.flags:
            if self._pings:
                self._pings -= 1
                self._side.on_pong()
            else:
                self._spend(1)
            return
        self.out += PingFrame(0, frame.opaque_data, flags=["ACK"]).serialize()
        self._spend(1)

    def _goaway(self, frame: GoAwayFrame) -> None:
        self._spend(1)
        self._side.on_goaway(frame.last_stream_id)

    def _window(self, frame: WindowUpdateFrame) -> None:
        self._spend(1)
        more = frame.window_increment
        if not frame.stream_id:
            self._send_window += more
            if self._send_window > _WINDOW_MAX:
                raise H2Broken(Code.FLOW_CONTROL_ERROR, "the connection's window is too large")
            self._side.on_window(None)
            return
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            self._check_known(frame.stream_id)
            return
        stream.send_window += more
        if stream.send_window > _WINDOW_MAX:
            self.fail(stream, Code.FLOW_CONTROL_ERROR)
        else:
            self._side.on_window(stream)

    def _check_known(self, id_: int) -> None:
        """Frames for a stream that is closed may still come, but not for one that was never opened (RFC 9113
        section 5.1). Raises H2Broken."""
        ours = bool(id_ % 2) == self._client
        if id_ >= self._next if ours else id_ > self.highest:
            raise H2Broken(Code.PROTOCOL_ERROR, "a frame of a stream that was never opened")

    def _spend(self, cost: float) -> None:
        if not self._budget.spend(cost):
            raise H2Broken(Code.ENHANCE_YOUR_CALM, "too many frames that achieve nothing")

    # --- out ---

    def start(self) -> None:
        """Writes what each side sends first: preface (client), SETTINGS, the connection's window."""
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
        """A client's new stream, with the head of its request."""
        stream = self.streams[self._next] = Stream(self._next, self._initial_window)
        self._next += 2
        self.send_headers(stream, fields, ended)
        return stream

    @property
    def exhausted(self) -> bool:
        """No numbers are left for new streams."""
        return self._next > _LAST_ID - 2

    @property
    def can_send(self) -> bool:
        """The connection's window allows more bytes of bodies."""
        return self._send_window > 0

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
        """Writes as many bytes as the windows allow and returns their number. `ended`: the stream ends with
        them, if that is all of them."""
        most = min(len(data), max(stream.send_window, 0), self._send_window)
        stream.send_window -= most
        self._send_window -= most
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
        """So many bytes of the stream were passed on: the peer may send as many again."""
        stream.consumed += size
        if (
            stream.consumed >= stream.receive_window // 2
            and not stream.ended_in
            and stream.id in self.streams
        ):
            grown = min(stream.receive_window, WINDOW - stream.receive_window, self._growth)
            self._growth -= grown
            stream.receive_window += grown
            more, stream.consumed = stream.consumed + grown, 0
            stream.receive_left += more
            self.out += WindowUpdateFrame(stream.id, more).serialize()

    def _count_received(self, size: int) -> None:
        self._received += size
        if self._received >= CONNECTION_WINDOW // 2:
            self.out += WindowUpdateFrame(0, self._received).serialize()
            self._received = 0

    def cancel(self, stream: Stream, code: Code) -> None:
        """Resets the stream, if it is open."""
        if stream.id in self.streams:
            self.out += RstStreamFrame(stream.id, code).serialize()
            self._drop(stream)

    def refuse(self, stream: Stream) -> None:
        """Resets a stream whose request was not processed: the peer may send it again."""
        self._spend(1)
        self.cancel(stream, Code.REFUSED_STREAM)

    def fail(self, stream: Stream, code: Code) -> None:
        """As `cancel`, for a fault of the peer: `on_reset` is called."""
        self._spend(1)
        self.cancel(stream, code)
        self._side.on_reset(stream, code)

    def go_away(self, code: Code = Code.NO_ERROR, *, at_once: bool = True) -> None:
        """Sends GOAWAY. `at_once`: no more streams are accepted; otherwise those on their way still are."""
        last = self.highest if at_once else _LAST_ID
        self._last_accepted = min(self._last_accepted, last)
        self.out += GoAwayFrame(0, self._last_accepted, code).serialize()

    def ping(self) -> None:
        """Sends PING: `on_pong` is called when all that was sent before has arrived."""
        self._pings += 1
        self.out += PingFrame(0, b"\0" * 8).serialize()

    def _ended(self, stream: Stream) -> None:
        stream.ended_out = True
        self._close_if_ended(stream)

    def _close_if_ended(self, stream: Stream) -> None:
        if stream.ended_in and stream.ended_out and stream.id in self.streams:
            self._drop(stream)
            self._budget.gain(PER_REQUEST)

    def _drop(self, stream: Stream) -> None:
        del self.streams[stream.id]
        self._growth += stream.receive_window - FIRST_WINDOW
