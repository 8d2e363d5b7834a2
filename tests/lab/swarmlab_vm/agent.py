"""Runs inside the virtual machine: commands for who knows the token. Standard library only.

One connection is one command:

    caller → agent   JSON in a line: token, argv, folder, environment; then frames: I input, empty at its end
    agent → caller   frames: R at once, it runs; O output; E errors; X at last, the exit code as text

A frame is its letter, the length of what follows in four bytes, and that. Who hangs up ends his command.
"""

import hmac
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO, Any

PORT = 7000
FRAME = struct.Struct("!cI")
CHUNK = 65536  # bytes of one frame at most
ASKING_LIMIT = 1 << 20  # bytes of the first line
BACKLOG = 64  # callers that wait; a test asks a few at once
NOT_RUN = b"127"


def main(token_file: str) -> None:
    token = Path(token_file).read_text().strip()
    with socket.create_server(("", PORT), backlog=BACKLOG) as server:
        while True:
            caller, _ = server.accept()
            threading.Thread(target=serve, args=(caller, token), daemon=True).start()


def serve(caller: socket.socket, token: str) -> None:
    with caller, caller.makefile("rb") as incoming:
        try:
            asked = json.loads(incoming.readline(ASKING_LIMIT))
            if hmac.compare_digest(str(asked["token"]), token):
                Command(caller, incoming, asked).run()
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"agent: {error!r}", file=sys.stderr)  # on the console; the caller misses the exit code


class Command:
    """One command, with a thread for each of its three streams."""

    def __init__(self, caller: socket.socket, incoming: IO[bytes], asked: dict[str, Any]) -> None:
        self.caller = caller
        self.incoming = incoming
        self.asked = asked
        self.sending = threading.Lock()

    def run(self) -> None:
        folder = self.asked["folder"]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(
                self.asked["argv"], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True,
                cwd=folder if os.path.isdir(folder) else "/", env={**os.environ, **self.asked["environment"]},
            )  # fmt: skip
        except OSError as error:
            self.send(b"E", f"{error}\n".encode())
            self.send(b"X", NOT_RUN)
            return
        self.send(b"R", b"")
        assert process.stdout
        assert process.stderr
        streams = [(b"O", process.stdout), (b"E", process.stderr)]
        outgoing = [threading.Thread(target=self.pump, args=stream, daemon=True) for stream in streams]
        for thread in outgoing:
            thread.start()
        threading.Thread(target=self.feed, args=(process,), daemon=True).start()
        for thread in outgoing:
            thread.join()
        self.send(b"X", str(process.wait()).encode())

    def send(self, letter: bytes, data: bytes) -> None:
        with self.sending:
            self.caller.sendall(FRAME.pack(letter, len(data)) + data)

    def pump(self, letter: bytes, stream: IO[bytes]) -> None:
        with stream:
            try:
                while data := os.read(stream.fileno(), CHUNK):
                    self.send(letter, data)
            except OSError:
                return  # the caller has hung up: `feed` sees it too, and ends the command

    def feed(self, process: "subprocess.Popen[bytes]") -> None:
        """Pass the input on until the caller hangs up, which ends the command if it still runs."""
        assert process.stdin
        wanted = True
        try:
            while header := self.incoming.read(FRAME.size):
                data = self.incoming.read(FRAME.unpack(header)[1])
                if wanted:
                    wanted = self.pass_on(process.stdin, data)
        except (OSError, ValueError, struct.error):
            pass  # as good as hung up
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)

    @staticmethod
    def pass_on(stream: IO[bytes], data: bytes) -> bool:
        """False when the command takes no more input."""
        try:
            if data:
                stream.write(data)
                stream.flush()
                return True
            stream.close()
        except BrokenPipeError:
            pass
        return False


if __name__ == "__main__":
    main(sys.argv[1])
