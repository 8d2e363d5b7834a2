"""Thousands of questions in seconds: one process per asking container, questions sent without waiting."""

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any

from tests.support.dns_message import Question
from tests.support.dns_world import Asker
from tests.support.swarm import LAB

SCRIPT = Path(__file__).with_name("dns_asker.py")
PATIENCE = 3.0  # seconds; the world has no upstream that is slow, so who is silent for longer stays silent
CLOSING = 10.0  # seconds for a process that has nothing left to do


class Whom(Enum):
    """The two resolvers of a container."""

    DOCKER = "Docker"
    OURS = "ours"


@dataclass(frozen=True)
class Asked:
    """A question, in which container, and of whom."""

    asker: str
    question: Question
    whom: Whom


class AskerProcess:
    """`dns_asker.py` in a container's namespace."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        argv = [*LAB, "node", asker.box.node, "--", "nsenter", f"--net={asker.box.namespace}"]
        argv += ["python3", "-E", "-S", str(SCRIPT)]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, questions: Sequence[tuple[Question, Whom]], patience: float) -> list[bytes | None]:
        """The replies, None for silence, in the order of the questions."""
        lines = [self._line(number, *one, patience) for number, one in enumerate(questions)]
        writing = Thread(target=self._write, args=("".join(lines),))  # or both ends wait for the other's pipe
        writing.start()
        replies: list[bytes | None] = [None] * len(questions)
        assert self._process.stdout is not None
        for _ in questions:
            told = json.loads(self._process.stdout.readline())
            replies[told["id"]] = None if told["reply"] is None else bytes.fromhex(told["reply"])
        writing.join()
        return replies

    def _line(self, number: int, question: Question, whom: Whom, patience: float) -> str:
        real = self._asker.tcp if question.tcp else self._asker.udp
        told: dict[str, Any] = {"id": number, "wire": question.wire.hex(), "tcp": question.tcp}
        told |= {"port": real if whom is Whom.DOCKER else 53, "seconds": patience}
        return json.dumps(told) + "\n"

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.communicate(timeout=CLOSING)


class Asking:
    """All askers at once. What was asked before is not asked again: `replies` remembers."""

    def __init__(self, askers: Mapping[str, Asker]) -> None:
        self._processes = {name: AskerProcess(asker) for name, asker in askers.items()}
        self._replies: dict[Asked, bytes | None] = {}

    def __enter__(self) -> "Asking":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.close()

    def ask_all(self, wanted: Iterable[Asked]) -> None:
        """Ask what is not yet known, every container's resolvers at the same time."""
        queues: dict[str, list[Asked]] = {}
        for one in dict.fromkeys(wanted):
            if one not in self._replies:
                queues.setdefault(one.asker, []).append(one)
        if not queues:
            return
        with ThreadPoolExecutor(len(queues)) as pool:
            for name, replies in zip(queues, pool.map(self._ask, queues, queues.values()), strict=True):
                self._replies.update(zip(queues[name], replies, strict=True))

    def _ask(self, name: str, queue: list[Asked]) -> list[bytes | None]:
        return self._processes[name].ask([(one.question, one.whom) for one in queue], PATIENCE)

    def reply(self, asked: Asked) -> bytes | None:
        """The raw reply, from memory if it is there."""
        self.ask_all([asked])
        return self._replies[asked]

    def forget(self, asked: Iterable[Asked]) -> None:
        """The next look asks again."""
        for one in asked:
            self._replies.pop(one, None)
