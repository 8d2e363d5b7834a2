"""A restricted process may say so much in a second, and answer what it was told beside that."""

import pytest

from mesh.errors import WireError
from sidecar.workers import supervisor
from sidecar.workers.supervisor import _Rate


def test_answers_to_what_it_was_told_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "monotonic", lambda: 1.0)
    rate = _Rate(limited=True)
    for _ in range(supervisor.RESTRICTED_MESSAGES_MAX):
        rate.count(1)
    rate.may_answer()
    rate.count(1)
    with pytest.raises(WireError, match="messages in a second"):
        rate.count(1)


def test_bytes_are_limited_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "monotonic", lambda: 1.0)
    rate = _Rate(limited=True)
    rate.may_answer()
    with pytest.raises(WireError, match="bytes in a second"):
        rate.count(supervisor.RESTRICTED_BYTES_MAX + 1)
