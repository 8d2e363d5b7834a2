"""The middlewares of a route, carried out in order: each changes the request's plan or answers it. Pure.

`steps` makes the handlers once per route, `go_on` runs those that are left. A handler that has to wait raises
`NeedsPasswordCheck` or `NeedsAuthRequest`; the runner does what is needed and calls `go_on` again.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from ipaddress import ip_address

from mesh.http.codec.path_check import check_rewritten
from mesh.http.config import htpasswd, model
from mesh.http.faults import HttpFault
from mesh.http.local_reply import LocalReply
from mesh.http.middleware import client_key, cors
from mesh.http.middleware.options import credentials
from mesh.http.request_plan import RequestContext, RequestPlan, Step, put
from mesh.parsing import PORT_MAX, is_int

CLIENTS_MAX = 65_536  # of a limit that are remembered; the ones not seen for longest are forgotten


VERIFIED_MAX = 1024  # pairs of password and hash, right and wrong: bcrypt takes a tenth of a second for each


class NeedsPasswordCheck(Exception):
    """A password has to be compared with a slow hash first: `verify` does it, in a thread, and remembers."""

    def __init__(self, password: str, hashed: str) -> None:
        super().__init__()
        self._password = password
        self._hashed = hashed

    def verify(self) -> None:
        _verified.compare(self._password, self._hashed)


class NeedsAuthRequest(Exception):
    """Somebody else has to be asked: `forward_auth.judge` says what becomes of it, and the step is taken."""

    def __init__(self, one: model.ForwardAuth) -> None:
        super().__init__()
        self.one = one


def steps(middlewares: Sequence[model.Middleware]) -> tuple[Step, ...]:
    """In order; those that count something keep their counts as long as the steps live."""
    return tuple(_made(one) for one in middlewares)


def go_on(made: Sequence[Step], asked: RequestContext, treatment: RequestPlan) -> None:
    """The steps that are left; the first answer ends it, and what earlier ones change of responses holds for
    that too. Raises NeedsPasswordCheck: verify, and go on; NeedsAuthRequest: ask, judge, and go on."""
    while treatment.answer is None and treatment.taken < len(made):
        path = treatment.path
        made[treatment.taken](asked, treatment)
        treatment.taken += 1
        if treatment.path is not path and treatment.answer is None and check_rewritten(treatment.path):
            # `/api../x` without its prefix `/api` is `/../x`: another path than the router's rule has seen.
            treatment.refuse(HttpFault.BAD_PATH, asked.request_id)


def _made(one: model.Middleware) -> Step:
    match one:
        case model.RedirectScheme():
            return lambda asked, treatment: _redirect_scheme(one, asked, treatment)
        case model.RedirectRegex():
            return lambda asked, treatment: _redirect_regex(one, asked, treatment)
        case model.StripPrefix():
            return lambda asked, treatment: _strip_prefix(one, treatment)
        case model.StripPrefixRegex():
            return lambda asked, treatment: _strip_prefix_regex(one, treatment)
        case model.AddPrefix():
            return lambda asked, treatment: _replace_path(one.prefix + treatment.path, treatment)
        case model.ReplacePath():
            return lambda asked, treatment: _replaced_path(one.path, treatment)
        case model.ReplacePathRegex():
            return lambda asked, treatment: _replace_path_regex(one, treatment)
        case model.Headers():
            return lambda asked, treatment: _headers(one, asked, treatment)
        case model.Compress():
            return lambda asked, treatment: _compress(one, asked, treatment)
        case model.ErrorPages():
            return lambda _asked, treatment: treatment.around.append(one)
        case model.BasicAuth():
            return lambda asked, treatment: _basic_auth(one, asked, treatment)
        case model.ForwardAuth():
            return lambda _asked, _treatment: _ask(one)
        case model.IpAllowList():
            return lambda asked, treatment: _ip_allow_list(one, asked, treatment)
        case model.Deny():
            return lambda asked, treatment: treatment.refuse(HttpFault.NO_ROUTE, asked.request_id)
        case model.RateLimit():
            return _RateLimiter(one)
        case model.InFlightReq():
            return _InFlight(one)
        case model.BodyLimit():
            return lambda asked, treatment: setattr(treatment, "body_max", one.most)
        case model.Retry():
            return lambda asked, treatment: setattr(treatment, "attempts", one.attempts + 1)
        case model.Chain():
            raise ValueError("a chain that was not resolved")


def _redirect(location: str, permanent: bool, method: str, treatment: RequestPlan) -> None:
    safe = method in ("GET", "HEAD")
    # 308 and 307 keep the method (RFC 9110 section 15.4).
    status = (301 if safe else 308) if permanent else (302 if safe else 307)
    treatment.answer = LocalReply(status, ((b"Location", location.encode("ascii", "ignore")),))


def _url(asked: RequestContext, treatment: RequestPlan) -> str:
    query = f"?{treatment.query}" if treatment.query else ""
    return f"{asked.scheme}://{asked.authority}{treatment.path}{query}"


def _redirect_scheme(one: model.RedirectScheme, asked: RequestContext, treatment: RequestPlan) -> None:
    host = asked.authority
    name, colon, port = host.rpartition(":")
    if colon and is_int(port, 0, PORT_MAX):
        host, port = name, port
    else:
        port = {"http": "80", "https": "443"}[asked.scheme]
    wanted = one.port or {"http": "80", "https": "443"}[one.scheme]
    if asked.scheme == one.scheme and (not one.port or port == wanted):
        return
    shown = "" if wanted == {"http": "80", "https": "443"}[one.scheme] else f":{wanted}"
    query = f"?{treatment.query}" if treatment.query else ""
    location = f"{one.scheme}://{host}{shown}{treatment.path}{query}"
    _redirect(location, one.permanent, asked.request.method, treatment)


def _redirect_regex(one: model.RedirectRegex, asked: RequestContext, treatment: RequestPlan) -> None:
    url = _url(asked, treatment)
    new = one.expression.replaced(url, one.replacement)
    if new is not None and new != url:
        _redirect(new, one.permanent, asked.request.method, treatment)


def _replace_path(path: str, treatment: RequestPlan) -> None:
    treatment.path = path if path.startswith("/") else "/" + path


def _replaced_path(path: str, treatment: RequestPlan) -> None:
    treatment.request_fields.append(("X-Replaced-Path", treatment.path))
    _replace_path(path, treatment)


def _replace_path_regex(one: model.ReplacePathRegex, treatment: RequestPlan) -> None:
    new = one.expression.replaced(treatment.path, one.replacement)
    if new is not None and new.isascii() and new.isprintable() and " " not in new:
        _replaced_path(new, treatment)


def _strip_prefix(one: model.StripPrefix, treatment: RequestPlan) -> None:
    for prefix in one.prefixes:
        if treatment.path.startswith(prefix):
            _stripped(prefix, treatment)
            return


def _strip_prefix_regex(one: model.StripPrefixRegex, treatment: RequestPlan) -> None:
    for expression in one.expressions:
        prefix = expression.first(treatment.path)
        if prefix and treatment.path.startswith(prefix):
            _stripped(prefix, treatment)
            return


def _stripped(prefix: str, treatment: RequestPlan) -> None:
    treatment.request_fields.append(("X-Forwarded-Prefix", prefix.rstrip("/") or "/"))
    _replace_path(treatment.path[len(prefix) :], treatment)


def _headers(one: model.Headers, asked: RequestContext, treatment: RequestPlan) -> None:
    for name, value in one.request:
        put(treatment.request_fields, name, *[value] * bool(value))
    for name, value in one.response:
        put(treatment.response_fields, name, *[value] * bool(value))
    if one.cors is not None:
        if cors.is_preflight(asked.request):
            treatment.answer = cors.preflight(one.cors, asked.request)
        else:
            treatment.response_fields += cors.response_lines(one.cors, asked.request)


def _compress(one: model.Compress, asked: RequestContext, treatment: RequestPlan) -> None:
    # RFC 9111 section 5.2.1.6: whoever asks may forbid it.
    if "no-transform" not in ",".join(asked.request.header("cache-control")).lower():
        treatment.around.append(one)


class _Verified:
    """What comparing has said, by a digest of both: the passwords themselves are not kept. The right ones are
    kept apart, so that guesses don't have them forgotten."""

    def __init__(self) -> None:
        self._known: dict[bool, OrderedDict[bytes, None]] = {True: OrderedDict(), False: OrderedDict()}
        self._salt = os.urandom(16)

    def __call__(self, password: str, hashed: str) -> bool:
        """Raises NeedsPasswordCheck."""
        key = self._key(password, hashed)
        for said, known in self._known.items():
            if key in known:
                return said
        raise NeedsPasswordCheck(password, hashed)

    def compare(self, password: str, hashed: str) -> None:
        known = self._known[htpasswd.matches(password, hashed)]
        known[self._key(password, hashed)] = None
        if len(known) > VERIFIED_MAX:
            known.popitem(last=False)

    def _key(self, password: str, hashed: str) -> bytes:
        return blake2b(f"{hashed}\n{password}".encode(), key=self._salt, digest_size=16).digest()


_verified = _Verified()


def _basic_auth(one: model.BasicAuth, asked: RequestContext, treatment: RequestPlan) -> None:
    given = credentials(asked.authorization or b"")
    allowed = given is not None and any(
        name == given[0] and _verified(given[1], hashed) for name, hashed in one.users
    )
    if not allowed:
        realm = one.realm.replace('"', "").encode("latin-1", "ignore")
        treatment.refuse(HttpFault.UNAUTHORIZED, asked.request_id)
        assert treatment.answer is not None
        challenge = (b"WWW-Authenticate", b'Basic realm="%b"' % realm)
        treatment.answer = LocalReply(401, (challenge, *treatment.answer.fields), treatment.answer.body)
        return
    assert given is not None
    if not one.keep_header:
        put(treatment.request_fields, "Authorization")
    if one.header:
        put(treatment.request_fields, one.header, given[0])


def _ask(one: model.ForwardAuth) -> None:
    raise NeedsAuthRequest(one)


def _ip_allow_list(one: model.IpAllowList, asked: RequestContext, treatment: RequestPlan) -> None:
    try:
        client = ip_address(client_key.address(one.strategy, asked))
    except ValueError:  # the proxies in front have not said it
        client = None
    if client is None or not any(client in network for network in one.ranges):
        treatment.refuse(HttpFault.FORBIDDEN, asked.request_id)
        assert treatment.answer is not None
        treatment.answer = replace(treatment.answer, status=one.status)


class _RateLimiter:
    """A token bucket for each source."""

    def __init__(self, limit: model.RateLimit) -> None:
        self._limit = limit
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, as of when

    def __call__(self, asked: RequestContext, treatment: RequestPlan) -> None:
        limit = self._limit
        client = client_key.key(limit.source, asked)
        tokens, since = self._buckets.pop(client, (float(limit.burst), asked.now))
        tokens = min(float(limit.burst), tokens + (asked.now - since) * limit.average)
        allowed = tokens >= 1
        self._buckets[client] = (tokens - 1 if allowed else tokens, asked.now)
        if len(self._buckets) > CLIENTS_MAX:
            self._buckets.popitem(last=False)
        if not allowed:
            treatment.refuse(HttpFault.TOO_MANY_REQUESTS, asked.request_id)
            assert treatment.answer is not None
            wait = b"%d" % max(1, round((1 - tokens) / limit.average))
            treatment.answer = LocalReply(
                429, ((b"Retry-After", wait), *treatment.answer.fields), treatment.answer.body
            )


class _InFlight:
    """Requests of each source that are under way."""

    def __init__(self, limit: model.InFlightReq) -> None:
        self._amount = limit.amount
        self._source = limit.source
        self._under_way: dict[str, int] = {}

    def __call__(self, asked: RequestContext, treatment: RequestPlan) -> None:
        client = client_key.key(self._source, asked)
        count = self._under_way.get(client, 0)
        if count >= self._amount:
            treatment.refuse(HttpFault.TOO_MANY_REQUESTS, asked.request_id)
            return
        self._under_way[client] = count + 1
        treatment.at_end.append(lambda: self._ended(client))

    def _ended(self, client: str) -> None:
        count = self._under_way[client] - 1
        if count:
            self._under_way[client] = count
        else:
            del self._under_way[client]
