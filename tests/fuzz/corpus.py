"""The inputs that every run begins with: a file of hexadecimal lines per target, `#` for remarks."""

from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"


def corpus(target: str) -> list[bytes]:
    lines = (FOLDER / f"{target}.txt").read_text().splitlines()
    return [bytes.fromhex(line) for line in lines if not line.startswith("#")]
