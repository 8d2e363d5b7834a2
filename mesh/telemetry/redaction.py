"""Keeping secrets out of what people are shown: password hashes, credentials in URLs and in labels. Pure.

Labels carry them (`basicauth.users`, `forwardauth.address=http://user:password@…`), clients put them into
URLs, and errors quote both. So whatever leaves the process for people, the admin API and the log, passes here
last. What is taken out is replaced by `***`; names stay, because an operator needs them to find the line.
"""

import re
from collections.abc import Mapping

HIDDEN = "***"

# user:password@ of a URL (RFC 3986, 3.2.1): everything up to the last @ of its authority.
_USERINFO = r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*:\\?/\\?/)[^\s/?#\"'\\]*@"
# A parameter of a query that is a credential by its name (RFC 6750, 2.3, and what people use).
_PARAMETER = (
    r"(?P<parameter>[?&](?:access_token|id_token|refresh_token|token|api_?key|client_secret|secret"
    r"|password|passwd|pwd|signature|sig|x-amz-signature)=)[^&#\s\"']+"
)
# crypt(5), with its dollars doubled as stack files have them; htpasswd's SHA-1; htdigest's name:realm:MD5.
_CRYPT = r"\${1,2}(?:2[abxy]?|apr1|1|5|6|7|y|gy|sha1|md5|argon2[a-z]*|scrypt)\${1,2}[^\s,;\"']+"
_SHA = r"\{S?SHA(?:256|512)?\}[A-Za-z0-9+/=]+"
_DIGEST = r"(?P<realm>:[^\s:,\"']+:)[0-9a-fA-F]{32}(?![0-9a-fA-F])"

_SECRET = re.compile("|".join((_USERINFO, _PARAMETER, _CRYPT, _SHA, _DIGEST)), re.IGNORECASE)

# Parts of a label's key that say that its value is a credential.
_SECRET_KEY = re.compile(
    r"password|passwd|secret|token|api_?-?key|credential|authorization|cookie|private|hmac", re.IGNORECASE
)
_USERS_KEY = re.compile(r"\.users$|^users$", re.IGNORECASE)


def redact(text: str) -> str:
    """The text without password hashes and without credentials in URLs."""
    return _SECRET.sub(_hidden, text)


def redact_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels as they may be shown: values that are credentials by their key are hidden whole."""
    return {key: _redact_value(key, value) for key, value in labels.items()}


def _redact_value(key: str, value: str) -> str:
    if _USERS_KEY.search(key):  # name:hash,name:hash of basicauth, name:realm:hash of digestauth
        return ",".join(f"{entry.partition(':')[0].strip()}:{HIDDEN}" for entry in value.split(","))
    if _SECRET_KEY.search(key) and value:
        return HIDDEN
    return redact(value)


def _hidden(found: re.Match[str]) -> str:
    kept = found["scheme"] or found["parameter"] or found["realm"] or ""
    return f"{kept}{HIDDEN}{'@' if found['scheme'] else ''}"
