#!/usr/bin/env python3
"""A steady load and what became of every request. Run as a program it makes the load (standard library only,
so that any Python container can); imported, it starts that program somewhere and keeps its books.

    load.py RATE TARGET…     GET / of each TARGET (host:port) in turn, RATE a second, each on a connection of
                             its own, until standard input ends. A JSON line for each request that has ended.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

REQUEST_SECONDS = 6.0  # for a whole request: two retransmits of a SYN fit in
STARTED_AT_ONCE = 256  # requests under way; more would mean that the service hangs
WAIT_SECONDS = 60.0  # for requests to be made


# --- the program --------------------------------------------------------------------------------------------


def request(target: str) -> dict[str, object]:
    """One request and its end."""
    begun = time.time()
    found: dict[str, object] = {"begun": begun, "target": target, "error": ""}
    connection = http.client.HTTPConnection(target, timeout=REQUEST_SECONDS)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        body = json.loads(response.read())
        found |= {"by": body["hostname"], "remote": body["remote"]}
        if response.status != 200:
            found["error"] = f"status {response.status}"
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        found["error"] = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return found | {"ended": time.time()}


def make_load(rate: float, targets: Sequence[str], stop: threading.Event) -> None:
    """Until told to stop; then wait for what is under way."""
    room, writing = threading.Semaphore(STARTED_AT_ONCE), threading.Lock()

    def one(target: str) -> None:
        found = json.dumps(request(target))
        with writing:
            print(found, flush=True)
        room.release()

    threads: list[threading.Thread] = []
    start, number = time.monotonic(), 0
    while not stop.is_set():
        room.acquire()
        threads = [thread for thread in threads if thread.is_alive()]
        threads.append(threading.Thread(target=one, args=(targets[number % len(targets)],)))
        threads[-1].start()
        number += 1
        stop.wait(max(0.0, start + number / rate - time.monotonic()))
    for thread in threads:
        thread.join()


def main(words: list[str]) -> None:
    stop = threading.Event()

    def until_end_of_input() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=until_end_of_input, daemon=True).start()
    make_load(float(words[0]), words[1:], stop)


# --- its books ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """A request. Times in seconds since the epoch; `error` is "" when it was answered."""

    begun: float
    ended: float
    target: str
    error: str = ""
    by: str = ""  # who answered: short id of the container
    remote: str = ""  # the client, as the application saw it

    def __str__(self) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(self.begun))
        what = self.error or f"answered by {self.by}"
        return (
            f"{at}.{self.begun % 1 * 1000:03.0f} {self.target}: {what} after {self.ended - self.begun:.2f} s"
        )


class Load:
    """The program, running. `command` runs it, given the interpreter's arguments."""

    def __init__(self, name: str, command: Sequence[str], rate: float, targets: Sequence[str]) -> None:
        self.name = name
        self._ended: list[Ended] = []
        self._changed = threading.Condition()
        source = Path(__file__).read_text(encoding="utf-8")
        self._program = subprocess.Popen(
            [*command, "python3", "-u", "-c", source, str(rate), *targets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            one = Ended(**json.loads(line))
            with self._changed:
                self._ended.append(one)
                self._changed.notify_all()

    def more(self, count: int, wanted: Callable[[Ended], bool] = lambda _: True) -> None:
        """Wait until so many more requests, begun from now on, have ended."""
        now = time.time()

        def enough() -> bool:
            return sum(one.begun >= now and wanted(one) for one in self._ended) >= count

        with self._changed:
            assert self._changed.wait_for(enough, WAIT_SECONDS), (
                f"{self.name}: no {count} more requests: {self}"
            )

    def stop(self) -> list[Ended]:
        """End it, and every request of it."""
        _, complaints = "", ""
        if self._program.poll() is None and self._program.stdin is not None:
            self._program.stdin.close()
        self._program.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        if self._program.stderr is not None:
            complaints = self._program.stderr.read()
        assert self._program.returncode == 0, f"{self.name}: {complaints}"
        return self._ended

    def kill(self) -> None:
        self._program.kill()
        self._program.wait(WAIT_SECONDS)

    def failures(self) -> list[Ended]:
        return [one for one in self._ended if one.error]

    def __str__(self) -> str:
        failed = self.failures()
        shown = "".join(f"\n    {one}" for one in failed[:20])
        return f"{self.name}: {len(self._ended)} requests, {len(failed)} failed{shown}"


if __name__ == "__main__":
    main(sys.argv[1:])
