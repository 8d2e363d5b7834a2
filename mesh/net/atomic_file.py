"""Small files of ours that a power failure must not cut in two."""

import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Written beside and renamed, so there is the old one or the new one. For us alone: keys are
    secret, and so may labels be as people write them. Raises OSError.
    """
    beside = path.with_name(path.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)
