"""The book of faults of ours: bounded whatever comes, and empty again when all is mended."""

import logging
from collections import Counter

import pytest

from mesh.internal_errors import PLACES_MAX, SUBJECTS_MAX, TRACEBACKS_MAX, InternalErrors


def test_a_fault_is_counted_named_and_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    errors = InternalErrors()
    try:
        raise ValueError("x" * 5000)
    except ValueError as error:
        errors.report("subscriber http", error, "service web", "it is left out")
        errors.report("poller", error)
    assert errors.counts == {"subscriber http": 1, "poller": 1}
    lasting, passing = errors.problems()
    assert lasting.startswith("service web: fault of ours in subscriber http: ValueError: xxx")
    assert lasting.endswith("; it is left out")
    assert passing.startswith("poller: 1 faults of ours")
    assert max(map(len, (lasting, passing))) < 400
    assert all(record.exc_info for record in caplog.records)
    errors.mended("subscriber http", "service web")
    errors.mended("subscriber http", "service web")
    assert [one.partition(":")[0] for one in errors.problems()] == ["poller"]


def test_neither_places_nor_subjects_nor_the_log_grow_without_end(caplog: pytest.LogCaptureFixture) -> None:
    errors = InternalErrors()
    with caplog.at_level(logging.ERROR):
        for number in range(5000):
            errors.report("one place", ValueError(), f"subject {number}")
    assert len(caplog.records) < 2 * TRACEBACKS_MAX + 10
    for number in range(5000):
        errors.report(f"place {number}", ValueError())
    assert len(errors.counts) <= PLACES_MAX + 1
    assert len(list(errors.problems())) <= PLACES_MAX + 1 + SUBJECTS_MAX
    assert errors.counts.total() == 10_000


def test_what_other_processes_have_counted_is_added_once() -> None:
    errors = InternalErrors()
    errors.hear("HTTP worker 0", Counter({"treating a request": 2}), ["service bad: left out"])
    errors.hear("HTTP worker 0", Counter({"treating a request": 5, "probe": 1}), [])
    errors.hear("HTTP worker 1", Counter({"treating a request": 1}), ["service bad: left out"])
    assert errors.counts == {"treating a request": 6, "probe": 1}
    assert list(errors.problems()) == ["HTTP worker 1: service bad: left out"]
    errors.forget("HTTP worker 1")
    errors.hear("HTTP worker 1", Counter({"treating a request": 1}), [])  # a new one
    assert errors.counts["treating a request"] == 7
    assert not list(errors.problems())


def test_what_other_processes_leave_out_is_known_while_they_are_there() -> None:
    errors = InternalErrors()
    errors.hear("HTTP worker 0", Counter(), [], [("http", "services", "a"), ("http", "services", "b")])
    errors.hear("HTTP worker 1", Counter(), [], [("http", "services", "a")])
    assert errors.quarantined_elsewhere() == {("http", "services", "a"), ("http", "services", "b")}
    errors.hear("HTTP worker 0", Counter(), [])
    assert errors.quarantined_elsewhere() == {("http", "services", "a")}
    errors.forget("HTTP worker 1")
    assert not errors.quarantined_elsewhere()
