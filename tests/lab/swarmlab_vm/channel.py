"""The outside end of the agent's channel: a command's input, output and exit code, as if it ran here."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from swarmlab.errors import LabError

from .agent import CHUNK, FRAME
from .places import Places

CONNECT_SECONDS = 5.0  # qemu accepts at once; the agent's first word may take longer when the machine is busy
ANSWER_SECONDS = 60.0
ENVIRONMENT: Mapping[str, str] = {
    "MESH_LAB_DIR": "/lab/state",
    "MESH_LAB_CACHE": "/lab/cache",
    "MESH_LAB_READY_SECONDS": "600",
}


def answers(places: Places) -> bool:
    """True if the agent runs commands."""
    try:
        streams = (None, sys.stdout.buffer, sys.stderr.buffer)
        return call(places, ["true"], *streams, patience=CONNECT_SECONDS) == 0
    except LabError:
        return False


def call(
    places: Places,
    argv: Sequence[str],
    source: IO[bytes] | None,
    out: IO[bytes],
    errors: IO[bytes],
    *,
    folder: str = "/",
    patience: float = ANSWER_SECONDS,
) -> int:
    """Run it in the machine and return its exit code. LabError when the machine does not answer."""
    try:
        with socket.create_connection(("127.0.0.1", _port(places)), CONNECT_SECONDS) as channel:
            channel.settimeout(patience)
            asked = {"token": places.token.read_text(), "argv": list(argv), "folder": folder}
            channel.sendall(json.dumps({**asked, "environment": ENVIRONMENT}).encode() + b"\n")
            return _exchange(channel, source, {b"O": out, b"E": errors})
    except OSError as error:
        raise LabError(f"the virtual machine does not answer: {error}") from error


def _exchange(channel: socket.socket, source: IO[bytes] | None, sinks: Mapping[bytes, IO[bytes]]) -> int:
    with channel.makefile("rb") as incoming:
        while header := incoming.read(FRAME.size):
            letter, length = FRAME.unpack(header)
            data = incoming.read(length)
            if letter == b"R":
                channel.settimeout(None)  # from now on it takes as long as the command does
                threading.Thread(target=_feed, args=(channel, source), daemon=True).start()
            elif letter == b"X":
                code = int(data)
                return code if code >= 0 else 128 - code  # a signal, as a shell says it
            else:
                sinks[letter].write(data)
                sinks[letter].flush()
    raise LabError("the virtual machine hung up before the command had ended")


def _feed(channel: socket.socket, source: IO[bytes] | None) -> None:
    try:
        while source is not None and (data := os.read(source.fileno(), CHUNK)):
            channel.sendall(FRAME.pack(b"I", len(data)) + data)
        channel.sendall(FRAME.pack(b"I", 0))
    except OSError:
        return  # the command has ended without reading all of its input


def _port(places: Places) -> int:
    try:
        return int(places.port.read_text())
    except FileNotFoundError as error:
        raise LabError("there is no virtual machine: run `tests/lab/vm up`") from error
