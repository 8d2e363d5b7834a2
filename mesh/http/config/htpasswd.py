"""Passwords against htpasswd's hashes: bcrypt, apr1 (Apache's MD5), SHA-1. Pure.

The last two are weak and still what people have in their labels; they are checked, not made.
"""

import base64
import hashlib
import hmac
import re

import bcrypt

# Passwords are checked on the loop; each step of bcrypt's cost doubles the time, 12 takes a quarter second.
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-2])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_APR1 = re.compile(r"\$apr1\$([./A-Za-z0-9]{1,8})\$([./A-Za-z0-9]{22})")
_SHA = re.compile(r"\{SHA\}([A-Za-z0-9+/=]{28})")
_DIGITS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PASSWORD_MAX = 256  # bytes; bcrypt looks at 72 of them
ROUNDS = 1000  # apr1's


def known_hash(hashed: str) -> bool:
    return any(kind.fullmatch(hashed) for kind in (_BCRYPT, _APR1, _SHA))


def matches(password: str, hashed: str) -> bool:
    """Takes as long for a wrong password as for the right one."""
    given = password.encode()
    if len(given) > PASSWORD_MAX or b"\0" in given:  # some versions of bcrypt raise for NUL
        return False
    if _BCRYPT.fullmatch(hashed):
        return bcrypt.checkpw(given[:72], hashed.encode())
    if found := _APR1.fullmatch(hashed):
        return hmac.compare_digest(_apr1(given, found[1].encode()), found[2])
    if found := _SHA.fullmatch(hashed):
        digest = base64.b64encode(hashlib.sha1(given).digest()).decode()
        return hmac.compare_digest(digest, found[1])
    return False


def _apr1(password: bytes, salt: bytes) -> str:
    """MD5-crypt as Apache has it: a thousand rounds over password, salt and the last digest."""
    inner = hashlib.md5(password + salt + password).digest()
    start = hashlib.md5(password + b"$apr1$" + salt)
    for left in range(len(password), 0, -16):
        start.update(inner[: min(16, left)])
    bits = len(password)
    while bits:
        start.update(b"\0" if bits & 1 else password[:1])
        bits >>= 1
    digest = start.digest()
    for turn in range(ROUNDS):
        one = hashlib.md5(password if turn & 1 else digest)
        if turn % 3:
            one.update(salt)
        if turn % 7:
            one.update(password)
        one.update(digest if turn & 1 else password)
        digest = one.digest()
    groups = [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)]
    out = "".join(_digits(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in groups)
    return out + _digits(digest[11], 2)


def _digits(value: int, count: int) -> str:
    out = ""
    for _ in range(count):
        out += _DIGITS[value & 0x3F]
        value >>= 6
    return out
