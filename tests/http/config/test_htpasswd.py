"""Passwords against the hashes of htpasswd."""

import bcrypt
import pytest

from mesh.http.config.htpasswd import PASSWORD_MAX, known_hash, matches

MD5 = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/"  # openssl passwd -apr1 -salt abcdefgh secret
SHA = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="  # secret
BCRYPT = "$2y$04$abcdefghijklmnopqrstuuSOFHCi5YK2ZsdAQMmdZMyYCp2iaTwIC"


@pytest.mark.parametrize("hashed", [MD5, SHA])
def test_only_the_right_password_matches(hashed: str) -> None:
    assert matches("secret", hashed)
    assert not matches("Secret", hashed)
    assert not matches("", hashed)
    assert not matches("secret\0", hashed)


def test_a_password_is_compared_with_bcrypt() -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    assert matches("secret", hashed)
    assert not matches("wrong", hashed)
    assert not matches("wrong", BCRYPT)


def test_a_password_that_is_too_long_is_not_hashed() -> None:
    assert not matches("s" * (PASSWORD_MAX + 1), SHA)


@pytest.mark.parametrize("hashed", ["plain", "$2y$13$" + BCRYPT[7:], "{SHA}short", "$apr1$$x", ""])
def test_other_hashes_are_not_known_and_match_nothing(hashed: str) -> None:
    assert not known_hash(hashed)
    assert not matches("secret", hashed)


def test_the_hashes_of_htpasswd_are_known() -> None:
    assert all(map(known_hash, (MD5, SHA, BCRYPT)))
