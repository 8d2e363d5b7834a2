"""One container, one question, two resolvers: what is faulty in our answer."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.support.dns_asking import Asked, Asking, Whom
from tests.support.dns_comparison import DOCKER_TTL, Case, differing, reference_to
from tests.support.dns_differences import judge
from tests.support.dns_message import Labels, Question, Reply, parse
from tests.support.dns_world import World

PERSISTENCE = 10.0  # seconds; a fault that is there that long is none of a Swarm that has yet to settle
AGAIN = 0.5  # seconds between two looks at a fault
SHOWN_MAX = 10  # faults told in full; of the others a line each

Pair: TypeAlias = tuple[str, Question]  # name of the asker, question


@dataclass(frozen=True)
class Fault:
    """Our answer, where nothing excuses that it is not Docker's."""

    case: Case
    why: dict[str, str]  # by aspect

    @property
    def brief(self) -> str:
        return f"{self.case.asker.name}: {self.case.question}: {', '.join(self.why)}"

    def __str__(self) -> str:
        return "\n".join((str(self.case), *(f"  {aspect}: {text}" for aspect, text in self.why.items())))


@dataclass
class Parity:
    """`used` counts the deliberate differences met."""

    world: World
    asking: Asking
    used: Counter[str] = field(default_factory=Counter)

    def ask(self, pairs: Iterable[Pair]) -> None:
        """All at once, so that judging them afterwards is done from memory."""
        self.asking.ask_all(asked for pair in pairs for asked in self._asked(pair))

    def _asked(self, pair: Pair) -> tuple[Asked, Asked, Asked]:
        name, question = pair
        reference = reference_to(question, self.world.askers[name])
        return (
            Asked(name, question, Whom.DOCKER),
            Asked(name, question, Whom.OURS),
            Asked(name, reference, Whom.DOCKER),
        )

    def case(self, pair: Pair) -> Case:
        docker, ours, reference = (_read(self.asking.reply(asked)) for asked in self._asked(pair))
        return Case(self.world.askers[pair[0]], pair[1], docker, ours, reference, self.world)

    def fault(self, pair: Pair) -> Fault | None:
        """What is wrong with our answer."""
        case = self.case(pair)
        why, used = judge(case, differing(case))
        self.used.update(used)
        return Fault(case, why) if why else None

    def faults(self, pairs: Iterable[Pair]) -> list[Fault]:
        """Those that persist: a faulty answer is asked for again until it is right or time is up."""
        pairs = list(pairs)
        self.ask(pairs)
        return self._persisting(self._faulty(pairs))

    def _persisting(self, found: list[Fault]) -> list[Fault]:
        end = time.monotonic() + PERSISTENCE
        while found and time.monotonic() < end:
            time.sleep(AGAIN)
            again = [(fault.case.asker.name, fault.case.question) for fault in found]
            self.asking.forget(asked for pair in again for asked in self._asked(pair))
            self.ask(again)
            found = self._faulty(again)
        return found

    def _faulty(self, pairs: Iterable[Pair]) -> list[Fault]:
        return [fault for pair in pairs if (fault := self.fault(pair)) is not None]

    def confirmed(self, pair: Pair) -> Fault | None:
        """As `fault`, but believed only if it persists: a datagram may be lost, and Docker's resolver is
        silent when an upstream takes long, as on a machine that is busy."""
        found = self.fault(pair)
        return next(iter(self._persisting([found])), None) if found is not None else None

    def known(self, pairs: Iterable[Pair]) -> dict[str, list[Labels]]:
        """Which of the names asked for Docker answers itself, by asker."""
        names: dict[str, list[Labels]] = {asker: [] for asker in self.world.askers}
        for asker, name in self._answered(pairs):
            names[asker].append(name)
        return names

    def _answered(self, pairs: Iterable[Pair]) -> Iterator[tuple[str, Labels]]:
        for name, question in pairs:
            docker = self.case((name, question)).docker
            if docker is not None and any(record.ttl == DOCKER_TTL for record in docker.answers):
                yield name, question.name


def _read(data: bytes | None) -> Reply | None:
    return None if data is None else parse(data)


def told(faults: list[Fault]) -> str:
    """For people."""
    shown = [str(fault) for fault in faults[:SHOWN_MAX]]
    more = [fault.brief for fault in faults[SHOWN_MAX:]]
    title = f"{len(faults)} answers differ from Docker's without a documented reason:"
    return "\n\n".join((title, *shown, "\n".join(more)))
