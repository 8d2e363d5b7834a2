"""`basicauth`: who is let in, what the application gets, and what is remembered of passwords."""

import base64

import pytest

from mesh.http.codec.proxy_headers import with_fields
from mesh.http.middleware.kinds import basic_auth
from mesh.http.middleware.kinds.basic_auth import BasicAuth, KnownPasswords, NeedsPasswordCheck
from tests.http.config.test_htpasswd import MD5, SHA
from tests.support.middleware_runs import plan_of


def basic(name: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{password}".encode())


@pytest.mark.parametrize(
    "given",
    [basic("admin", "wrong"), basic("other", "secret"), b"Bearer x", b"Basic !!!", b"Basic YQ==", None],
)
def test_who_has_no_users_password_is_asked_for_one(given: bytes | None) -> None:
    answer = plan_of(BasicAuth((("admin", MD5),)), authorization=given).answer
    assert answer is not None
    assert answer.status == 401
    assert dict(answer.fields)[b"WWW-Authenticate"] == b'Basic realm="traefik"'


def test_who_has_a_users_password_is_let_in() -> None:
    plan = plan_of(BasicAuth((("admin", MD5),)), authorization=basic("admin", "secret"))
    assert plan.answer is None
    assert plan.request_fields == []


def test_the_application_need_not_get_the_password() -> None:
    configured = BasicAuth((("admin", MD5),), keep_header=False)
    plan = plan_of(configured, authorization=basic("admin", "secret"))
    assert plan.request_fields == [("Authorization", None)]


def test_the_application_gets_the_name_of_the_user_and_no_other() -> None:
    configured = BasicAuth((("admin", MD5),), header="X-User")
    fields = plan_of(configured, authorization=basic("admin", "secret")).request_fields
    sent = with_fields(b"x-user: root\r\nX-User: root\r\nA: b\r\n", fields)
    assert sent == b"A: b\r\nX-User: admin\r\n"


def test_a_password_is_compared_once_and_then_known() -> None:
    known = KnownPasswords(b"salt")
    for password, right in (("secret", True), ("wrong", False)):
        with pytest.raises(NeedsPasswordCheck) as needs:
            known.check(password, SHA)
        needs.value.verify()
        assert known.check(password, SHA) is right


def test_guesses_do_not_displace_a_right_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic_auth, "VERIFIED_MAX", 2)
    known = KnownPasswords(b"salt")
    for password in ("secret", "a", "b", "c"):
        known.compare(password, SHA)
    assert known.check("secret", SHA)
    assert not known.check("c", SHA)
    with pytest.raises(NeedsPasswordCheck):
        known.check("a", SHA)  # the first of the guesses is forgotten
