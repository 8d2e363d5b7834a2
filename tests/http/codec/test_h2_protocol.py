"""Frames of HTTP/2 without a socket: what is allowed, what ends a stream, what ends the connection."""

from collections.abc import Callable

import h2.config
import h2.connection
import h2.events
import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.http.codec import h2_protocol
from mesh.http.codec.frame_budget import BUDGET, PER_REQUEST
from mesh.http.codec.h2_protocol import (
    CONNECTION_WINDOW,
    FIRST_WINDOW,
    GROWTH,
    HEAD_WORK,
    PREFACE,
    STREAMS_MAX,
    WINDOW,
    Code,
    H2Broken,
    H2Protocol,
    Stream,
)
from mesh.http.codec.hpack import Fields

REQUEST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]


class Notes:
    """A side that writes down what it is told."""

    def __init__(self, client: bool = False) -> None:
        self.now = 0.0
        self.protocol = H2Protocol(self, client=client, clock=lambda: self.now)
        self.told: list[tuple[object, ...]] = []
        self.streams: dict[int, Stream] = {}
        self.protocol.start()

    def on_request(self, stream: Stream, fields: Fields, ended: bool) -> None:
        self.streams[stream.id] = stream
        self.told.append(("opened", stream.id, ended))

    def on_headers(self, stream: Stream, fields: Fields, ended: bool) -> None:
        self.told.append(("headers", stream.id, ended))

    def on_data(self, stream: Stream, data: bytes, ended: bool) -> None:
        self.told.append(("data", stream.id, data, ended))

    def on_reset(self, stream: Stream, code: int) -> None:
        self.told.append(("reset", stream.id, code))

    def on_window(self, stream: Stream | None) -> None:
        pass

    def on_goaway(self, last: int) -> None:
        self.told.append(("away", last))

    def on_pong(self) -> None:
        self.told.append(("pong",))

    def out(self) -> list[Frame]:
        """What was said since the last time."""
        data = memoryview(bytes(self.protocol.out))
        self.protocol.out.clear()
        frames = []
        while data:
            frame, length = Frame.parse_frame_header(data[:9])
            frame.parse_body(data[9 : 9 + length])
            frames.append(frame)
            data = data[9 + length :]
        return frames


def server() -> Notes:
    """One that a client has greeted."""
    notes = Notes()
    notes.protocol.receive(PREFACE + SettingsFrame(0).serialize())
    notes.out()
    return notes


def headers(id_: int, end: bool = False, fields: list[tuple[bytes, bytes]] = REQUEST) -> bytes:
    flags = ["END_HEADERS"] + ["END_STREAM"] * end
    block = Encoder()
    block.header_table_size = 0  # each is for itself, whatever came before
    return HeadersFrame(id_, block.encode(fields), flags=flags).serialize()


class TestBeginning:
    def test_each_side_begins_with_settings_and_a_window(self) -> None:
        first, window = Notes().out()
        assert isinstance(first, SettingsFrame)
        assert first.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == h2_protocol.STREAMS_MAX
        assert isinstance(window, WindowUpdateFrame)
        assert window.window_increment == CONNECTION_WINDOW - 65_535

    def test_a_connection_may_come_byte_by_byte(self) -> None:
        notes = Notes()
        for byte in PREFACE + SettingsFrame(0).serialize() + headers(1, True):
            notes.protocol.receive(bytes((byte,)))
        assert notes.told == [("opened", 1, True)]

    @pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:20] + b"abcd", b"\0" * 30])
    def test_another_preface_ends_the_connection(self, data: bytes) -> None:
        with pytest.raises(H2Broken) as broken:
            Notes().protocol.receive(data)
        assert broken.value.code is Code.PROTOCOL_ERROR

    def test_a_first_frame_other_than_settings_ends_the_connection(self) -> None:
        with pytest.raises(H2Broken):
            Notes().protocol.receive(PREFACE + PingFrame(0, bytes(8)).serialize())


def flags(frame: Frame, *names: str) -> bytes:
    for name in names:
        frame.flags.add(name)
    return frame.serialize()


VIOLATIONS = {
    "a stream's number is even": (headers(2), Code.PROTOCOL_ERROR),
    "DATA for nothing": (DataFrame(1, b"a").serialize(), Code.PROTOCOL_ERROR),
    "DATA without a stream": (b"\0\0\1\0\0\0\0\0\0a", Code.FRAME_SIZE_ERROR),
    "RST_STREAM for nothing": (RstStreamFrame(1).serialize(), Code.PROTOCOL_ERROR),
    "WINDOW_UPDATE for nothing": (WindowUpdateFrame(1, 1).serialize(), Code.PROTOCOL_ERROR),
    "WINDOW_UPDATE of nothing": (b"\0\0\4\x08\0\0\0\0\0\0\0\0\0", Code.FRAME_SIZE_ERROR),
    "a window too large": (WindowUpdateFrame(0, 2**31 - 1).serialize(), Code.FLOW_CONTROL_ERROR),
    "CONTINUATION of nothing": (ContinuationFrame(1).serialize(), Code.PROTOCOL_ERROR),
    "a frame within a block": (
        HeadersFrame(1, b"", flags=[]).serialize() + PingFrame(0, bytes(8)).serialize(),
        Code.PROTOCOL_ERROR,
    ),
    "another stream's CONTINUATION": (
        HeadersFrame(1, b"").serialize() + ContinuationFrame(3).serialize(),
        Code.PROTOCOL_ERROR,
    ),
    "PUSH_PROMISE": (PushPromiseFrame(1, 2).serialize(), Code.PROTOCOL_ERROR),
    "a block that cannot be decoded": (
        HeadersFrame(1, b"\xff\xff\xff\xff\xff", flags=["END_HEADERS"]).serialize(),
        Code.COMPRESSION_ERROR,
    ),
    "a frame too large": (b"\0\x40\1\0\0\0\0\0\1", Code.FRAME_SIZE_ERROR),
    "a first window too large": (
        b"\0\0\6\4\0\0\0\0\0\0\4\xff\xff\xff\xff",
        Code.FLOW_CONTROL_ERROR,
    ),
    "a frame size too small": (b"\0\0\6\4\0\0\0\0\0\0\5\0\0\0\1", Code.PROTOCOL_ERROR),
    "ENABLE_PUSH is 2": (b"\0\0\6\4\0\0\0\0\0\0\2\0\0\0\2", Code.PROTOCOL_ERROR),
    "SETTINGS of five bytes": (b"\0\0\5\4\0\0\0\0\0abcde", Code.FRAME_SIZE_ERROR),
    "PING of seven bytes": (b"\0\0\7\6\0\0\0\0\0abcdefg", Code.FRAME_SIZE_ERROR),
    "a stream that depends on itself": (
        HeadersFrame(1, b"", depends_on=1, flags=["PRIORITY", "END_HEADERS"]).serialize(),
        Code.PROTOCOL_ERROR,
    ),
    "padding longer than its frame": (b"\0\0\2\0\x08\0\0\0\1\x05a", Code.FRAME_SIZE_ERROR),
}


class TestViolations:
    @pytest.mark.parametrize(("data", "code"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
    def test_a_violation_ends_the_connection_with_its_code(self, data: bytes, code: Code) -> None:
        notes = server()
        with pytest.raises(H2Broken) as broken:
            notes.protocol.receive(data)
        assert broken.value.code is code

    def test_data_after_the_end_ends_the_stream(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1, True) + DataFrame(1, b"a").serialize())
        assert notes.told == [("opened", 1, True), ("reset", 1, Code.STREAM_CLOSED)]
        assert any(isinstance(one, RstStreamFrame) for one in notes.out())

    def test_trailers_without_end_stream_reset_the_stream(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1) + headers(1))
        assert notes.told[-1] == ("reset", 1, Code.PROTOCOL_ERROR)

    def test_frames_for_a_stream_that_was_reset_are_ignored(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1))
        notes.protocol.cancel(notes.streams[1], Code.CANCEL)
        notes.protocol.receive(
            DataFrame(1, b"a").serialize() + headers(1, True) + WindowUpdateFrame(1, 5).serialize()
        )
        notes.protocol.receive(RstStreamFrame(1).serialize() + headers(3, True))
        assert notes.told == [("opened", 1, False), ("opened", 3, True)]

    def test_unknown_frames_are_ignored(self) -> None:
        notes = server()
        notes.protocol.receive(b"\0\0\3\xfa\0\0\0\0\0abc" + headers(1, True))
        assert notes.told == [("opened", 1, True)]


class TestLimits:
    def test_streams_beyond_the_limit_are_refused(self) -> None:
        notes = server()
        most = h2_protocol.STREAMS_MAX
        notes.protocol.receive(b"".join(headers(2 * number + 1) for number in range(most + 3)))
        assert len(notes.streams) == most
        refused = [one for one in notes.out() if isinstance(one, RstStreamFrame)]
        assert [(one.stream_id, one.error_code) for one in refused] == [
            (2 * number + 1, Code.REFUSED_STREAM) for number in range(most, most + 3)
        ]

    def test_a_stream_that_exceeds_its_window_is_reset(self) -> None:
        notes = server()
        piece = DataFrame(1, bytes(16 * 1024)).serialize()
        notes.protocol.receive(
            headers(1) + piece * (FIRST_WINDOW // 16 // 1024) + DataFrame(1, b"a").serialize()
        )
        assert notes.told[-1] == ("reset", 1, Code.FLOW_CONTROL_ERROR)

    def test_streams_that_pause_take_nothing_of_the_connections_window(self) -> None:
        """All but one hold what they may, for ever; that one goes on."""
        notes = server()
        piece = bytes(16 * 1024)
        for id_ in range(1, 2 * STREAMS_MAX - 1, 2):
            notes.protocol.receive(
                headers(id_) + DataFrame(id_, piece).serialize() * (FIRST_WINDOW // len(piece))
            )
        last = 2 * STREAMS_MAX - 1
        notes.protocol.receive(headers(last))
        got = 0
        for _ in range(4 * CONNECTION_WINDOW // len(piece)):
            notes.protocol.receive(DataFrame(last, piece).serialize())
            notes.protocol.consumed(notes.streams[last], len(piece))
            got += len(piece)
        told = sum(
            one.window_increment
            for one in notes.out()
            if isinstance(one, WindowUpdateFrame) and not one.stream_id
        )
        came = got + (STREAMS_MAX - 1) * FIRST_WINDOW
        assert came - CONNECTION_WINDOW // 2 < told <= came
        assert len(notes.protocol.streams) == STREAMS_MAX

    def test_a_window_grows_while_its_bytes_are_consumed(self) -> None:
        notes = server()
        piece = bytes(16 * 1024)
        notes.protocol.receive(headers(1))
        stream = notes.streams[1]
        for _ in range(100):
            notes.protocol.receive(DataFrame(1, piece).serialize())
            notes.protocol.consumed(stream, len(piece))
        assert stream.receive_window == WINDOW
        assert stream.receive_left <= WINDOW

    def test_the_growth_of_all_windows_is_limited(self) -> None:
        """And what one stream had of it is another's when it has ended."""
        notes = server()
        piece = bytes(16 * 1024)

        def grow(id_: int) -> int:
            notes.protocol.receive(headers(id_))
            for _ in range(40):
                notes.protocol.receive(DataFrame(id_, piece).serialize())
                notes.protocol.consumed(notes.streams[id_], len(piece))
            return notes.streams[id_].receive_window

        windows = [grow(id_) for id_ in range(1, 2 * STREAMS_MAX, 2)]
        assert sum(windows) <= STREAMS_MAX * FIRST_WINDOW + GROWTH
        assert (windows[0], windows[-1]) == (WINDOW, FIRST_WINDOW)
        notes.protocol.cancel(notes.streams[1], Code.NO_ERROR)
        assert grow(2 * STREAMS_MAX + 1) == WINDOW

    def test_windows_are_opened_again_as_bytes_are_consumed(self) -> None:
        notes = server()
        piece = bytes(16 * 1024)
        notes.protocol.receive(headers(1))
        for _ in range(10 * CONNECTION_WINDOW // len(piece)):
            notes.protocol.receive(DataFrame(1, piece).serialize())
            notes.protocol.consumed(notes.streams[1], len(piece))
        assert notes.told[-1] == ("data", 1, piece, False)

    def test_the_connections_window_is_opened_again_for_a_cancelled_stream(self) -> None:
        notes = server()
        piece = bytes(16 * 1024)
        for id_ in range(1, 2001, 2):
            notes.protocol.receive(headers(id_))
            for _ in range(8):
                notes.protocol.receive(DataFrame(id_, piece).serialize())
            notes.protocol.cancel(notes.streams[id_], Code.NO_ERROR)
        assert not notes.protocol.streams

    def test_padding_counts_and_is_given_back(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1))
        frame = DataFrame(1, b"a", pad_length=255, flags=["PADDED"]).serialize()
        for _ in range(3 * WINDOW // 257):
            notes.protocol.receive(frame)
            notes.protocol.consumed(notes.streams[1], 1)
        assert notes.told[-1] == ("data", 1, b"a", False)

    @pytest.mark.parametrize(
        "begun",
        [
            HeadersFrame(1, b"").serialize() + ContinuationFrame(1, b"").serialize() * 20,
            HeadersFrame(1, bytes(16_000)).serialize() + ContinuationFrame(1, bytes(16_000)).serialize() * 5,
        ],
        ids=["many", "large"],
    )
    def test_a_block_without_an_end_ends_the_connection(self, begun: bytes) -> None:
        notes = server()
        with pytest.raises(H2Broken) as broken:
            notes.protocol.receive(begun)
        assert broken.value.code is Code.ENHANCE_YOUR_CALM

    def test_a_block_too_large_when_decoded_ends_the_connection(self) -> None:
        """One byte repeats a field of 4 KB that was kept."""
        notes = server()
        encoder = Encoder()
        block = encoder.encode([*REQUEST, (b"a", bytes(4000).replace(b"\0", b"x"))], huffman=False)
        notes.protocol.receive(HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]).serialize())
        with pytest.raises(H2Broken) as broken:
            notes.protocol.receive(HeadersFrame(3, b"\xbe" * 5000, flags=["END_HEADERS"]).serialize())
        assert broken.value.code is Code.ENHANCE_YOUR_CALM

    @pytest.mark.parametrize(
        "frame",
        [
            PingFrame(0, bytes(8)).serialize(),
            SettingsFrame(0).serialize(),
            PriorityFrame(1).serialize(),
            b"\0\0\0\xfa\0\0\0\0\0",
            GoAwayFrame(0).serialize(),
            WindowUpdateFrame(0, 1).serialize(),
            PingFrame(0, bytes(8), flags=["ACK"]).serialize(),
            SettingsFrame(0, flags=["ACK"]).serialize(),
        ],
        ids=["ping", "settings", "priority", "unknown", "goaway", "window", "pong", "settled"],
    )
    def test_frames_that_achieve_nothing_are_limited(self, frame: bytes) -> None:
        notes = server()
        with pytest.raises(H2Broken) as broken:
            notes.protocol.receive(frame * int(BUDGET + 2))
        assert broken.value.code is Code.ENHANCE_YOUR_CALM

    def test_empty_data_frames_are_limited(self) -> None:
        notes = server()
        with pytest.raises(H2Broken) as broken:
            notes.protocol.receive(headers(1) + DataFrame(1).serialize() * int(BUDGET + 1))
        assert broken.value.code is Code.ENHANCE_YOUR_CALM

    @pytest.mark.parametrize("known", ["open", "over"])
    @pytest.mark.parametrize("frame", [WindowUpdateFrame(1, 1), DataFrame(1, b"a")], ids=["window", "a byte"])
    def test_small_windows_and_small_data_cost_budget(self, frame: Frame, known: str) -> None:
        notes = server()
        notes.protocol.receive(headers(1))
        if known == "over":
            notes.protocol.cancel(notes.streams[1], Code.NO_ERROR)

        def flood() -> None:
            for _ in range(int(5 * BUDGET)):
                notes.protocol.receive(frame.serialize())
                if known == "open":
                    notes.protocol.consumed(notes.streams[1], 1)

        with pytest.raises(H2Broken) as broken:
            flood()
        assert broken.value.code is Code.ENHANCE_YOUR_CALM

    def test_an_endpoint_has_the_same_budget(self) -> None:
        """Interim responses without an end, and windows that are opened for nothing."""
        for sent in (headers(1, fields=[(b":status", b"103")]), WindowUpdateFrame(1, 1).serialize()):
            notes = Notes(client=True)
            notes.protocol.receive(SettingsFrame(0).serialize())
            notes.protocol.open(REQUEST, ended=False)
            with pytest.raises(H2Broken) as broken:
                notes.protocol.receive(sent * int(BUDGET + 2))
            assert broken.value.code is Code.ENHANCE_YOUR_CALM

    def test_small_grpc_messages_cost_hardly_any_budget(self) -> None:
        """gRPC's shortest, and as many of ours: each answered by two WINDOW_UPDATE, as some clients do."""
        notes = server()
        notes.protocol.receive(headers(1) + WindowUpdateFrame(0, 2**30).serialize())
        notes.protocol.receive(WindowUpdateFrame(1, 2**30).serialize())
        updates = WindowUpdateFrame(0, 7).serialize() + WindowUpdateFrame(1, 7).serialize()
        for _ in range(20_000):
            notes.protocol.receive(DataFrame(1, bytes(7)).serialize())
            notes.protocol.consumed(notes.streams[1], 7)
            assert notes.protocol.send_data(notes.streams[1], bytes(7), False) == 7
            notes.protocol.receive(updates)
        assert notes.protocol.streams

    def test_a_large_body_in_small_windows_is_not_a_flood(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1))
        for _ in range(5_000):
            for size in (16_384, 3):
                notes.protocol.receive(DataFrame(1, bytes(size)).serialize())
                notes.protocol.consumed(notes.streams[1], size)
        assert notes.protocol.streams

    def test_windows_of_one_byte_earn_no_budget(self) -> None:
        notes = Notes()
        none = {SettingsFrame.INITIAL_WINDOW_SIZE: 0}
        notes.protocol.receive(PREFACE + SettingsFrame(0, none).serialize() + headers(1, True))

        def flood() -> None:
            for _ in range(int(3 * BUDGET)):
                notes.protocol.receive(WindowUpdateFrame(1, 1).serialize())
                notes.protocol.send_data(notes.streams[1], bytes(5000), True)

        with pytest.raises(H2Broken) as broken:
            flood()
        assert broken.value.code is Code.ENHANCE_YOUR_CALM

    def test_fields_that_are_only_indexed_cost_budget(self) -> None:
        """Heads of 60 kB by some bytes each; those that are really sent cost nothing."""
        kept = Encoder()
        fields = [*REQUEST, *((b"a", bytes(3000).replace(b"\0", b"x")) for _ in range(20))]

        def flood(named: bool) -> Notes:
            notes = server()
            for id_ in range(1, 1001, 2):
                block = kept if named else Encoder()
                notes.protocol.receive(
                    _in_frames(id_, block.encode(fields[: 24 if named else 5], huffman=False))
                )
                notes.protocol.cancel(notes.streams[id_], Code.NO_ERROR)
            return notes

        assert not flood(named=False).protocol.streams
        with pytest.raises(H2Broken) as broken:
            flood(named=True)
        assert broken.value.code is Code.ENHANCE_YOUR_CALM

    def test_one_call_processes_a_limited_number_of_frames(self) -> None:
        """The rest waits for its turn; nothing is lost."""
        notes = server()
        sent = b"".join(headers(2 * number + 1, True) for number in range(100))
        assert notes.protocol.receive(sent, 30)
        assert len(notes.told) < 30 / HEAD_WORK
        more = True
        while more:
            more = notes.protocol.receive(b"", 30)
        assert len(notes.told) == 100

    def test_requests_that_are_reset_at_once_are_limited(self) -> None:
        notes = server()
        sent = b"".join(
            headers(id_) + RstStreamFrame(id_, Code.CANCEL).serialize() for id_ in range(1, 2002, 2)
        )
        with pytest.raises(H2Broken) as broken:
            notes.protocol.receive(sent)
        assert broken.value.code is Code.ENHANCE_YOUR_CALM
        assert len(notes.streams) <= BUDGET / PER_REQUEST + 1

    def test_finished_requests_and_time_refill_the_budget(self) -> None:
        notes = server()
        for id_ in range(1, 20_001, 2):
            notes.protocol.receive(headers(id_, True) + PingFrame(0, bytes(8)).serialize() * 2)
            notes.protocol.send_headers(notes.streams[id_], [(b":status", b"204")], True)
        for _ in range(1000):
            notes.now += 0.1
            notes.protocol.receive(PingFrame(0, bytes(8)).serialize())
        assert not notes.protocol.streams


def _in_frames(id_: int, block: bytes) -> bytes:
    return HeadersFrame(id_, block, flags=["END_HEADERS", "END_STREAM"]).serialize()


class TestSending:
    def test_no_more_is_sent_than_the_windows_allow(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1, True))
        stream = notes.streams[1]
        notes.protocol.send_headers(stream, [(b":status", b"200")], False)
        data = bytes(100_000)
        assert notes.protocol.send_data(stream, data, True) == 65_535
        assert notes.protocol.send_data(stream, data[65_535:], True) == 0
        notes.protocol.receive(WindowUpdateFrame(1, 2**20).serialize())
        assert notes.protocol.send_data(stream, data[65_535:], True) == 0  # the connection's window
        notes.protocol.receive(WindowUpdateFrame(0, 10_000).serialize())
        assert notes.protocol.send_data(stream, data[65_535:], True) == 10_000
        notes.protocol.receive(WindowUpdateFrame(0, 2**20).serialize())
        rest = data[75_535:]
        assert notes.protocol.send_data(stream, rest, True) == len(rest)
        sent = [one for one in notes.out() if isinstance(one, DataFrame)]
        assert sum(len(one.data) for one in sent) == len(data)
        assert max(len(one.data) for one in sent) == 16 * 1024
        assert ["END_STREAM" in one.flags for one in sent] == [False] * (len(sent) - 1) + [True]
        assert not notes.protocol.streams

    def test_a_smaller_initial_window_can_make_a_window_negative(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1, True))
        stream = notes.streams[1]
        notes.protocol.send_headers(stream, [(b":status", b"200")], False)
        notes.protocol.send_data(stream, bytes(10_000), False)
        notes.protocol.receive(SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1000}).serialize())
        assert stream.send_window == 1000 - 10_000
        assert notes.protocol.send_data(stream, b"a", False) == 0
        notes.protocol.receive(WindowUpdateFrame(1, 9_001).serialize())
        assert notes.protocol.send_data(stream, b"ab", False) == 1

    def test_a_large_head_is_sent_in_continuation_frames(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1, True))
        fields = [(b":status", b"200"), (b"a", b"x" * 40_000)]
        notes.protocol.send_headers(notes.streams[1], fields, True)
        first, *others = notes.out()
        assert isinstance(first, HeadersFrame)
        assert "END_HEADERS" not in first.flags
        assert [type(one) for one in others] == [ContinuationFrame, ContinuationFrame]
        assert "END_HEADERS" in others[-1].flags

    def test_a_graceful_goaway_has_two_steps(self) -> None:
        notes = server()
        notes.protocol.receive(headers(1, True))
        notes.protocol.go_away(at_once=False)
        notes.protocol.ping()
        notes.protocol.receive(headers(3, True))  # it was on its way
        notes.protocol.receive(PingFrame(0, bytes(8), flags=["ACK"]).serialize())
        notes.protocol.go_away()
        notes.protocol.receive(headers(5, True))
        assert notes.told == [("opened", 1, True), ("opened", 3, True), ("pong",)]
        aways = [one for one in notes.out() if isinstance(one, GoAwayFrame)]
        assert [one.last_stream_id for one in aways] == [2**31 - 1, 3]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 200_000),  # of a request's body
            st.integers(0, 200_000),  # of its response's
            st.integers(0, 3),  # extra fields
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 70_000),
)
def test_the_library_h2_and_this_protocol_understand_each_other(
    asked: list[tuple[int, int, int]], cut: int
) -> None:
    """Whole conversations, cut into pieces anyhow: every byte arrives, in both directions."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(True))
    client.initiate_connection()
    notes = Notes()
    bodies = {2 * number + 1: one for number, one in enumerate(asked)}
    left = {id_: one[0] for id_, one in bodies.items()}
    answers: dict[int, int] = {}
    received: dict[int, int] = dict.fromkeys(bodies, 0)
    responses = dict.fromkeys(bodies, 0)
    ended: set[int] = set()
    for id_, (size, _, extra) in bodies.items():
        fields = [(name.decode(), value.decode()) for name, value in REQUEST]
        client.send_headers(id_, fields + [(f"x-{n}", "y" * n) for n in range(extra)], end_stream=not size)

    def feed(take: Callable[[bytes], object], data: bytes) -> None:
        for at in range(0, len(data), cut):
            take(data[at : at + cut])

    def hear(data: bytes) -> None:
        for event in client.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                responses[event.stream_id] += len(event.data)
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)

    for _ in range(10_000):
        for id_, more in left.items():
            if more:
                most = min(more, client.local_flow_control_window(id_), client.max_outbound_frame_size)
                left[id_] -= most
                client.send_data(id_, bytes(most), end_stream=most == more)
        feed(notes.protocol.receive, client.data_to_send())
        told, notes.told = notes.told, []
        for what, id_, *rest in told:
            if what == "data":
                assert isinstance(rest[0], bytes)
                received[id_] += len(rest[0])  # type: ignore[index]
                notes.protocol.consumed(notes.streams[id_], len(rest[0]))  # type: ignore[index]
            if rest[-1] is True:
                answers[id_] = bodies[id_][1]  # type: ignore[index]
                notes.protocol.send_headers(notes.streams[id_], [(b":status", b"200")], not bodies[id_][1])  # type: ignore[index]
        for id_, more in list(answers.items()):
            if more:
                answers[id_] -= notes.protocol.send_data(notes.streams[id_], bytes(more), True)
        feed(hear, bytes(notes.protocol.out))
        notes.protocol.out.clear()
        if len(ended) == len(bodies):
            break
    assert received == {id_: one[0] for id_, one in bodies.items()}
    assert responses == {id_: one[1] for id_, one in bodies.items()}
    assert not notes.protocol.streams
