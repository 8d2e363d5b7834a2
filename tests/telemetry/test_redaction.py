"""Secrets stay out of what people are shown, and everything else stays as it is."""

import pytest

from mesh.telemetry.redaction import redact, redact_labels

BCRYPT = "$2y$05$" + "a" * 53
HTDIGEST = "walter:realm:5d41402abc4b2a76b9719d911017c592"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://u:p@auth.example/x", "http://***@auth.example/x"),
        ("GET https://token@host:8443/a?b=c", "GET https://***@host:8443/a?b=c"),
        ("http://u:p@ss@host/", "http://***@host/"),
        (r'"http:\/\/u:p@host\/"', r'"http:\/\/***@host\/"'),
        ("redis://:secret@cache:6379/0", "redis://***@cache:6379/0"),
        ("/login?user=a&password=b&next=/c", "/login?user=a&password=***&next=/c"),
        ("/?access_token=abc", "/?access_token=***"),
        (f"admin:{BCRYPT}", "admin:***"),
        ("admin:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/, b", "admin:***, b"),
        ("admin:$$apr1$$abcdefgh$$h9FWgUz3n9YxylKLlR5SQ/", "admin:***"),
        ("admin:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "admin:***"),
        ("$6$salt$hash end", "*** end"),
        (HTDIGEST, "walter:realm:***"),
    ],
)
def test_a_secret_is_hidden(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://auth.example/x@y?z=a@b",
        "ops@example.org wrote",
        "costs $5 or $10",
        "10.0.0.2:80 of web.1.abcdefghijklmnopqrstuvwxy",
        "/search?q=token",
        "5d41402abc4b2a76b9719d911017c592",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_a_label_is_hidden_by_its_key() -> None:
    middleware = "traefik.http.middlewares.m"
    labels = {
        f"{middleware}.basicauth.users": f"admin:{BCRYPT},plain:secret",
        f"{middleware}.digestauth.users": HTDIGEST,
        f"{middleware}.headers.customrequestheaders.Authorization": "Basic dTpw",
        f"{middleware}.forwardauth.address": "http://u:p@auth/x",
        "org.example.api-token": "abc",
        "mesh.port.80.mode": "proxy",
    }
    assert redact_labels(labels) == {
        f"{middleware}.basicauth.users": "admin:***,plain:***",
        f"{middleware}.digestauth.users": "walter:***",
        f"{middleware}.headers.customrequestheaders.Authorization": "***",
        f"{middleware}.forwardauth.address": "http://***@auth/x",
        "org.example.api-token": "***",
        "mesh.port.80.mode": "proxy",
    }
