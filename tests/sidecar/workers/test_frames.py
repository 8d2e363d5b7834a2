"""Where messages begin and end, in whatever pieces they come, and whose the descriptors are."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.errors import WireError
from sidecar.workers.frames import HEAD, FrameReader, pack_head

BODY_MAX, DESCRIPTORS_MAX = 200, 4

bodies = st.lists(
    st.tuples(st.binary(max_size=BODY_MAX), st.integers(0, DESCRIPTORS_MAX)), min_size=1, max_size=8
)


def drained(reader: FrameReader) -> list[tuple[bytes, tuple[int, ...]]]:
    found = []
    while (frame := reader.next()) is not None:
        found.append(frame)
    return found


@given(bodies, st.data())
def test_frames_arrive_whole_in_any_pieces_with_their_own_descriptors(
    sent: list[tuple[bytes, int]], data: st.DataObject
) -> None:
    """As the kernel does it: descriptors come with the piece that has their frame's first byte, and a piece
    ends before the next frame that has some."""
    reader, expected, got, numbers = FrameReader(BODY_MAX, DESCRIPTORS_MAX), [], [], iter(range(10_000))
    for body, count in sent:
        descriptors = tuple(next(numbers) for _ in range(count))
        expected.append((body, descriptors))
        whole = pack_head(body, count) + body
        cuts = sorted(data.draw(st.lists(st.integers(1, len(whole) - 1), max_size=5, unique=True)))
        for index, (start, end) in enumerate(zip([0, *cuts], [*cuts, len(whole)], strict=True)):
            reader.feed(whole[start:end], descriptors if index == 0 else ())
            got += drained(reader)
    assert got == expected
    assert reader.left() == ()


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 6)), max_size=20))
def test_whatever_comes_is_a_frame_within_the_limits_or_refused(pieces: list[tuple[bytes, int]]) -> None:
    reader, numbers = FrameReader(BODY_MAX, DESCRIPTORS_MAX), iter(range(10_000))
    given_, held = 0, deque[int]()
    try:
        for data, count in pieces:
            given_ += count
            reader.feed(data, tuple(next(numbers) for _ in range(count)))
            for body, descriptors in drained(reader):
                assert len(body) <= BODY_MAX
                held.extend(descriptors)
    except WireError:
        pass
    held.extend(reader.left())
    assert sorted(held) == list(range(given_)), "each descriptor is somebody's, once"


def test_what_a_head_announces_has_to_be_there() -> None:
    reader = FrameReader(BODY_MAX, DESCRIPTORS_MAX)
    reader.feed(HEAD.pack(10, 1))
    with pytest.raises(WireError, match="1 descriptors announced, 0 came"):
        reader.next()


def test_a_body_over_the_limit_is_refused_before_it_has_come() -> None:
    reader = FrameReader(BODY_MAX)
    reader.feed(HEAD.pack(BODY_MAX + 1, 0))
    with pytest.raises(WireError, match="200 are allowed"):
        reader.next()
