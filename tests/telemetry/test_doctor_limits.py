"""What the sidecar uses and may use: each says what it allows, and has a remedy where that is little."""

from collections.abc import Callable

import pytest

from mesh.telemetry import doctor_limits
from mesh.telemetry.doctor import Check, Verdict
from mesh.telemetry.doctor_limits import ProcessLimits

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL
MIB = 2**20


def descriptors(used: int, most: int | None) -> Check:
    return doctor_limits.descriptors(ProcessLimits(descriptors=used, descriptors_max=most, reserved=512))


def memory(used: int, most: int | None) -> Check:
    return doctor_limits.memory(
        ProcessLimits(memory=used * MIB, memory_max=None if most is None else most * MIB)
    )


def processes(used: int, most: int | None) -> Check:
    return doctor_limits.processes(ProcessLimits(processes=used, processes_max=most))


@pytest.mark.parametrize(
    ("judge", "verdict", "says"),
    [
        (lambda: descriptors(62, 1_048_576), OK, "62 of 1048576 in use: room for 349504 more containers"),
        (lambda: descriptors(62, 20_000), WARN, "a process that relays has room for 9744 connections"),
        (lambda: descriptors(60_000, 70_000), WARN, "room for 3333 more containers"),
        (lambda: descriptors(69_400, 70_000), FAIL, "no container is captured"),
        (lambda: descriptors(70_000, 70_000), FAIL, "room for 0 more"),
        (lambda: descriptors(62, None), OK, "without a limit"),
        (lambda: memory(124, 512), OK, "124 of 512 MiB in use: room for about 49664 more connections"),
        (lambda: memory(124, 200), WARN, "of 200 MiB"),
        (lambda: memory(400, 512), WARN, "400 of 512"),
        (lambda: memory(500, 512), FAIL, "ends a process"),
        (lambda: memory(124, None), OK, "without a limit"),
        (lambda: doctor_limits.memory(ProcessLimits()), OK, "not limited here"),
        (lambda: processes(14, 1000), OK, "14 of 1000"),
        (lambda: processes(14, 40), WARN, "few are left"),
        (lambda: processes(14, 20), FAIL, "can't be started anew"),
        (lambda: processes(14, None), OK, "without a limit"),
        (lambda: doctor_limits.processes(ProcessLimits()), OK, "not limited here"),
        (lambda: doctor_limits.conntrack(10, 262_144), OK, "10 of 262144"),
        (lambda: doctor_limits.conntrack(10, 8_192), WARN, "no more than 8192 connections"),
        (lambda: doctor_limits.conntrack(8_000, 8_192), FAIL, "dropped"),
    ],
)
def test_limits(judge: Callable[[], Check], verdict: Verdict, says: str) -> None:
    found = judge()
    assert found.verdict is verdict
    assert says in found.seen
    assert bool(found.remedy) is (verdict is not OK)
