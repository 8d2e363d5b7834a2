"""The reader of labels: what counts when a label cannot be read, and which problem says so."""

from mesh.errors import Problem
from mesh.labels.reader import LabelReader
from mesh.labels.values import number, parse_flag


def test_a_label_is_read_without_the_space_around_it() -> None:
    reader = LabelReader("web", {"a": " 5 "})
    assert reader.read("a", number(1, 9), 1) == 5
    assert reader.read("b", number(1, 9), 1) == 1
    assert reader.problems == []


def test_a_value_that_is_false_is_no_default() -> None:
    assert LabelReader("web", {"a": "off"}).read("a", parse_flag, True) is False


def test_a_label_that_cannot_be_read_is_named_with_what_is_used() -> None:
    reader = LabelReader("web", {"a": "x", "b": "x"})
    assert reader.read("a", number(1, 9), 3) == 3
    assert reader.read("b", number(0, 9), 0) == 0
    assert reader.parse("c", "x", number(1, 9)) is None
    assert reader.problems == [
        Problem("web", "a", "'x' is no number from 1 to 9; 3 is used"),
        Problem("web", "b", "'x' is no number from 0 to 9; none is used"),
        Problem("web", "c", "'x' is no number from 1 to 9; ignored"),
    ]
