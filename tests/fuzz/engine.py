"""A mutation engine of the standard library, for where there is no coverage-guided one.

It knows nothing of the code under test: inputs are those of the corpus and of its own past, changed in a few
places, with the numbers and tokens that DNS messages are made of. Same seed, same inputs.
"""

from collections.abc import Callable, Sequence
from random import Random
from time import monotonic
from typing import TypeAlias

Target: TypeAlias = Callable[[bytes], None]

SIZE_MAX = 4200  # bytes of an input: the largest query and a little more
POOL_MAX = 512  # inputs remembered beside the corpus
CHANGES_MAX = 5
NOTE_MAX = 1000  # bytes of an input that are shown
NUMBERS = (0, 1, 2, 12, 41, 63, 64, 127, 128, 192, 250, 252, 255, 256, 512, 1232, 1280, 4096, 32768, 65535)
TOKENS = (
    b"\xc0\x0c",
    b"\xc0\x00",
    b"\x00\x00\x29\x10\x00\x00\x00\x00\x00\x00\x00",
    b"\x03web\x00",
    b"\x05tasks\x03big\x00",
    b"\x04slow\x07example\x00",
    b"\x01\x31\x07in-addr\x04arpa\x00",
    b"\x00\x01\x00\x01",
    b"\x00\x0a\x00\x08cookies!",
    b"\x3f" + b"a" * 63,
)


def run(target: Target, corpus: Sequence[bytes], seed: int, runs: int, seconds: float) -> int:
    """Call the target with the corpus, then with mutations; returns how many inputs that were.

    Whatever the target raises comes out, with the input in a note.
    """
    rng, pool = Random(seed), list(corpus) or [b""]
    first, end = len(pool), monotonic() + seconds
    for count in range(runs):
        data = pool[count] if count < first else mutated(rng, pool)
        try:
            target(data)
        except BaseException as error:
            error.add_note(f"input {count} of seed {seed}: {data[:NOTE_MAX].hex()}")
            raise
        if count >= first and rng.random() < 0.05:
            remember(rng, pool, first, data)
        if monotonic() > end:
            return count + 1
    return runs


def remember(rng: Random, pool: list[bytes], first: int, data: bytes) -> None:
    if len(pool) - first < POOL_MAX:
        pool.append(data)
    else:
        pool[rng.randrange(first, len(pool))] = data


def mutated(rng: Random, pool: Sequence[bytes]) -> bytes:
    data = bytearray(rng.choice(pool))
    for _ in range(rng.randint(1, CHANGES_MAX)):
        rng.choice(CHANGES)(rng, data, pool)
    return bytes(data[:SIZE_MAX])


# --- changes ------------------------------------------------------------------------------------------------


def _flip(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _number(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    size = rng.choice((1, 2, 2, 4))
    at = rng.randrange(len(data) + 1)
    data[at : at + size] = (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size)


def _insert(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(TOKENS) if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 40))


def _delete(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 1, 2, 4, 12, 100))]


def _cut(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _repeat(rng: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    part = data[at : at + rng.randint(1, 60)]
    data[at:at] = part * rng.choice((1, 1, 2, 20))


def _splice(rng: Random, data: bytearray, pool: Sequence[bytes]) -> None:
    other = rng.choice(pool)
    at = rng.randrange(len(data) + 1)
    data[at:] = other[rng.randrange(len(other) + 1) :]


CHANGES = (_flip, _flip, _number, _number, _insert, _delete, _cut, _repeat, _splice)
