"""`basicauth`: lets in who knows a user's password (RFC 7617). Pure."""

import base64
import os
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache, partial
from hashlib import blake2b

from mesh.http.config import htpasswd
from mesh.http.config.model import Middleware
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply
from mesh.http.middleware.kind import MiddlewareKind
from mesh.http.middleware.options import LabelError, MiddlewareOptions, parse_settable_names
from mesh.http.request_plan import MiddlewareHandler, RequestContext, RequestPlan, set_field
from mesh.labels.values import FIELD_VALUE, parse_field_value, parse_list, parse_strict_flag

VERIFIED_MAX = 1024  # pairs of password and hash, right and wrong: bcrypt takes a tenth of a second for each


@dataclass(frozen=True, slots=True)
class BasicAuth(Middleware):
    users: tuple[tuple[str, str], ...]  # name, hash as htpasswd writes it
    realm: str = "traefik"
    keep_header: bool = True  # false: the application does not get the Authorization field
    header: str = ""  # the field in which the application gets the user's name; "": none


class NeedsPasswordCheck(Exception):
    """A password has to be compared with a slow hash. The caller runs `verify` in a thread, which remembers
    the result, and then runs the handler again."""

    def __init__(self, known: "KnownPasswords", password: str, hashed: str) -> None:
        super().__init__()
        self._known = known
        self._password = password
        self._hashed = hashed

    def verify(self) -> None:
        """Compare, and remember the result."""
        self._known.compare(self._password, self._hashed)


class KnownPasswords:
    """The results of comparisons, by a digest of password and hash: the passwords themselves are not stored.
    Right ones are stored apart from wrong ones, so that guesses cannot displace them."""

    def __init__(self, salt: bytes) -> None:
        """`salt`: secret bytes, so that nobody can find a password by its digest."""
        self._results: dict[bool, OrderedDict[bytes, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._salt = salt

    def check(self, password: str, hashed: str) -> bool:
        """Is it the right password? Raises NeedsPasswordCheck where that is not known yet."""
        key = self._key(password, hashed)
        for result, keys in self._results.items():
            if key in keys:
                return result
        raise NeedsPasswordCheck(self, password, hashed)

    def compare(self, password: str, hashed: str) -> None:
        """Compare them, which may take a tenth of a second, and remember the result."""
        keys = self._results[htpasswd.matches(password, hashed)]
        keys[self._key(password, hashed)] = None
        if len(keys) > VERIFIED_MAX:
            keys.popitem(last=False)

    def _key(self, password: str, hashed: str) -> bytes:
        return blake2b(f"{hashed}\n{password}".encode(), key=self._salt, digest_size=16).digest()


@cache
def _known_passwords() -> KnownPasswords:
    """The process's one, made with the first `basicauth`: routes that are rebuilt compare nothing again."""
    return KnownPasswords(os.urandom(16))


def _parse(options: MiddlewareOptions) -> BasicAuth:
    users = [_parse_user(entry) for entry in options.read("users", parse_list)]
    realm = options.read("realm", parse_field_value, "traefik")
    removed = options.read("removeheader", parse_strict_flag, False)
    header: str = "".join(options.read("headerfield", parse_settable_names, ()))
    if header and any(FIELD_VALUE.fullmatch(name) is None for name, _ in users):
        raise LabelError("headerfield", "a name has bytes that no field may have")
    return BasicAuth(tuple(users), realm, not removed, header)


def _parse_user(entry: str) -> tuple[str, str]:
    name, colon, hashed = entry.partition(":")
    if not colon or not name:
        raise LabelError("users", "an entry is not NAME:HASH")
    if not htpasswd.known_hash(hashed):
        known = "bcrypt up to cost 12, apr1, SHA"
        raise LabelError("users", f"the hash of {name!r} is not of htpasswd's ({known})")
    return name, hashed


def parse_credentials(value: bytes) -> tuple[str, str] | None:
    """Name and password of an Authorization field; None where it has none."""
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None


def _build_handler(configured: BasicAuth) -> MiddlewareHandler:
    return partial(_handle, configured, _known_passwords())


def _handle(
    configured: BasicAuth, passwords: KnownPasswords, context: RequestContext, plan: RequestPlan
) -> None:
    given = parse_credentials(context.authorization or b"")
    if given is None or not any(
        name == given[0] and passwords.check(given[1], hashed) for name, hashed in configured.users
    ):
        _challenge(configured.realm, context, plan)
        return
    if not configured.keep_header:
        set_field(plan.request_fields, "Authorization")
    if configured.header:
        set_field(plan.request_fields, configured.header, given[0])


def _challenge(realm: str, context: RequestContext, plan: RequestPlan) -> None:
    """Answer with 401 and a Basic challenge for this realm."""
    plan.refuse(HttpFault.UNAUTHORIZED, context.request_id)
    assert plan.answer is not None
    challenge = b'Basic realm="%b"' % realm.replace('"', "").encode("latin-1", "ignore")
    plan.answer = LocalReply(401, ((b"WWW-Authenticate", challenge), *plan.answer.fields), plan.answer.body)


KIND = MiddlewareKind(("basicauth",), BasicAuth, _parse, _build_handler, guards=True)
