"""SECURITY.md names tests; they are there. A test that moves takes its row along."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_tests_that_are_named_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 10
    assert not [one for one in named if not (ROOT / one).is_file()]


def test_it_is_linked() -> None:
    assert "SECURITY.md" in (ROOT / "README.md").read_text()
    assert "SECURITY.md" in (ROOT / "docs/architecture.md").read_text()
