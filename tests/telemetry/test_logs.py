"""Log lines: one per event, its facts as fields, whatever they hold."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from mesh.telemetry import logs
from mesh.telemetry.logs import Repeats, event


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.getLogger("mesh.test")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers.clear()


def lines(log: logging.Logger, formatter: logging.Formatter) -> io.StringIO:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    log.addHandler(handler)
    return stream


def test_json_has_the_event_and_its_fields(log: logging.Logger) -> None:
    stream = lines(log, logs.JsonFormatter())
    event(log, logging.WARNING, "100% captured", id="abc", port=80, why=ValueError("x"))
    line = json.loads(stream.getvalue())
    assert line.pop("ts").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "100% captured",
        "logger": "mesh.test",
        "id": "abc",
        "port": 80,
        "why": "x",
    }
    assert list(json.loads(stream.getvalue()))[:3] == ["ts", "level", "event"]


def test_extras_of_ordinary_logging_are_fields_too_and_cannot_pose_as_ours(log: logging.Logger) -> None:
    stream = lines(log, logs.JsonFormatter())
    log.info("forwarded %s", "x", extra={"upstream": "u", "level": "fake"})
    line = json.loads(stream.getvalue())
    assert (line["event"], line["upstream"], line["level"]) == ("forwarded x", "u", "info")


def test_an_exception_stays_in_its_line(log: logging.Logger) -> None:
    stream = lines(log, logs.JsonFormatter())
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: boom" in json.loads(line)["exception"]


def test_text_is_for_people_and_no_field_can_start_a_line(log: logging.Logger) -> None:
    stream = lines(log, logs.TextFormatter())
    event(log, logging.INFO, "bad label", value="a\nfake")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("info    bad label value='a\\nfake'")


def test_what_is_below_the_level_costs_no_line(log: logging.Logger) -> None:
    stream = lines(log, logs.TextFormatter())
    event(log, logging.DEBUG, "nothing")
    assert stream.getvalue() == ""


def test_setup_sets_the_root_logger() -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    try:
        stream = io.StringIO()
        logs.setup("warning", "json", stream)
        logging.getLogger("any").info("no")
        logging.getLogger("any").warning("yes")
        assert json.loads(stream.getvalue())["event"] == "yes"
        logs.setup("debug", "text")
        assert root.handlers[0].stream is sys.stderr  # type: ignore[attr-defined]
    finally:
        root.handlers[:], root.level = before


def test_repeats_pass_once_per_interval_and_count_what_they_held_back() -> None:
    now = 100.0
    repeats = Repeats(10, clock=lambda: now)
    assert [repeats.passed("a") for _ in range(3)] == [0, None, None]
    assert repeats.passed("b") == 0
    now = 110.0
    assert repeats.passed("a") == 2
    assert repeats.passed("a") is None


def test_repeats_forgets_the_oldest_key_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_KEYS", 2)
    repeats = Repeats(10, clock=lambda: 0.0)
    assert [repeats.passed(key) for key in ("a", "b", "c")] == [0, 0, 0]
    assert [repeats.passed(key) for key in ("c", "b", "a")] == [None, None, 0]
