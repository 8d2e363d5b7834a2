"""The table of kinds: complete, without doubles, and read without regard to anything but the kind."""

import pkgutil

import pytest

from mesh.http.middleware import kinds
from mesh.http.middleware.kinds.buffering import BodyLimit
from mesh.http.middleware.kinds.chain import Chain
from mesh.http.middleware.options import LabelError
from mesh.http.middleware.table import BY_LABEL, KINDS, NOT_FOLLOWED, NOTHING, kind_of, parse_middleware


def test_each_file_of_kinds_is_in_the_table_once() -> None:
    files = {one.name for one in pkgutil.iter_modules(kinds.__path__)} - {"cors"}  # a part of `headers`
    assert sorted(kind.model.__module__.rpartition(".")[2] for kind in KINDS) == sorted(files)


def test_labels_and_models_are_those_of_one_kind() -> None:
    labels = [label for kind in KINDS for label in kind.labels]
    assert len(set(labels)) == len(labels) == len(BY_LABEL)
    assert len({kind.model for kind in KINDS}) == len(KINDS)
    assert not BY_LABEL.keys() & NOT_FOLLOWED.keys()


def test_a_configuration_leads_to_its_kind() -> None:
    assert kind_of(BodyLimit(1)) is BY_LABEL["buffering"]
    assert kind_of(NOTHING) is BY_LABEL["chain"]


def test_an_unknown_option_makes_a_guard_faulty() -> None:
    with pytest.raises(LabelError, match="may be what keeps others out"):
        parse_middleware("buffering", {"maxRequestBodyBytes": "1", "maxRequestBodyByte": "1"})


def test_a_harmless_option_of_a_guard_is_named_and_ignored() -> None:
    options = {"maxRequestBodyBytes": "1", "retryExpression": "x"}
    assert parse_middleware("buffering", options) == (BodyLimit(1), ["retryExpression"])


def test_an_unknown_option_of_another_kind_is_named_and_ignored() -> None:
    assert parse_middleware("retry", {"attempts": "1", "colour": "red"})[1] == ["colour"]


def test_a_kind_that_is_not_followed_does_nothing() -> None:
    assert parse_middleware("grpcweb", {"allowOrigins": "*"}) == (Chain(()), [])


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(LabelError, match="digestauth is not supported"):
        parse_middleware("digestauth", {})
