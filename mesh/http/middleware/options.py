"""The options of Traefik's middlewares read into values. Pure."""

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlsplit

from mesh.http.config import model
from mesh.http.config.htpasswd import known_hash
from mesh.http.config.regex import Expression
from mesh.labels.ports import duration
from mesh.parsing import parse_int

LIST_MAX = 256  # entries of a list in a label
NUMBER_MAX = 10**9  # of any number in a label
FIELD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]{0,252}[a-z0-9_])?|[0-9a-f:.]{2,45}")
VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]{0,4096}")


class LabelError(ValueError):
    """The middleware cannot be made; `option` as it follows the kind in the label."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(message)
        self.option = f".{option}" if option else ""


class _MiddlewareOptions:
    """One middleware's, as written; asked for without regard to case."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self._options = {key.lower(): value for key, value in options.items()}
        self._written = {key.lower(): key for key in options}
        self.asked: set[str] = set()

    def read(self, name: str, read: Callable[[str], Any], default: Any = None) -> Any:
        """Raises LabelError; where there is no default, also when it is missing."""
        self.asked.add(name)
        text = self._options.get(name)
        if text is None:
            if default is None:
                raise LabelError(name, "is required")
            return default
        try:
            return read(text)
        except ValueError as error:
            raise LabelError(name, str(error)) from error

    def below(self, name: str) -> list[tuple[str, str]]:
        """`name.X = value` as X as written, value."""
        prefix = name + "."
        found = [key for key in self._options if key.startswith(prefix)]
        self.asked.update(found)
        return [(self._written[key][len(prefix) :], self._options[key]) for key in found]

    def ignored(self) -> list[str]:
        return sorted(self._written[key] for key in self._options.keys() - self.asked if key)


NOTHING = model.Chain(())  # what does nothing

# Not followed. Routers that name them are served without, for these keep nobody out.
WITHOUT: Mapping[str, str] = {
    "circuitbreaker": "tasks that fail are left out, and limited by max_requests",
    "contenttype": "Content-Type is never guessed",
    "grpcweb": "gRPC-Web is passed on as it comes",
}

# Kinds that keep somebody or something out: without an option that was meant they would guard less than was
# asked for, so one that is not known makes the middleware a faulty one. The tuples: beginnings of Traefik's
# options that are named and passed over, because nobody comes in for want of them.
HARMLESS: Mapping[str, tuple[str, ...]] = {
    "basicauth": (),
    "buffering": ("maxresponsebodybytes", "memrequestbodybytes", "memresponsebodybytes", "retryexpression"),
    "chain": (),
    "forwardauth": (),
    "headers": (
        *("sslredirect", "ssltemporaryredirect", "sslhost", "sslproxyheaders", "sslforcehost"),
        *("featurepolicy", "hostsproxyheaders", "isdevelopment", "publickey"),
    ),
    "inflightreq": (),
    "ipallowlist": (),
    "ipwhitelist": (),
    "ratelimit": (),
}


def read_middleware(kind: str, options: Mapping[str, str]) -> tuple[model.Middleware, list[str]]:
    """The middleware, and the options that are not followed. Raises LabelError.

    Of a kind in WITHOUT the middleware is nothing at all."""
    make = _KINDS.get(kind)
    if make is None and kind in WITHOUT:
        return NOTHING, []
    if make is None:
        raise LabelError("", f"{kind} is not supported (known are {', '.join(sorted(_KINDS))})")
    given = _MiddlewareOptions(options)
    made = make(given)
    harmless = HARMLESS.get(kind)
    for option in given.ignored() if harmless is not None else ():
        if not option.lower().startswith(harmless or ()):
            raise LabelError(option, "unknown option, which may be what keeps others out")
    return made, given.ignored()


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1")


def _list(text: str) -> tuple[str, ...]:
    found = tuple(one for part in text.split(",") if (one := part.strip()))
    if not found or len(found) > LIST_MAX:
        raise ValueError(f"{len(found)} entries are not from 1 to {LIST_MAX}")
    return found


def references(text: str) -> tuple[str, ...]:
    """Names of middlewares. An empty one among them is a guard that somebody meant to be there."""
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(names):
        raise ValueError("has an empty name among its middlewares (an unset variable?)")
    if len(names) > LIST_MAX:
        raise ValueError(f"{len(names)} entries are more than {LIST_MAX}")
    return names


def _positive(text: str) -> int:
    return parse_int(text, 1, NUMBER_MAX)


def _count(text: str) -> int:
    return 0 if text == "0" else _positive(text)


def _text(text: str) -> str:
    if VALUE.fullmatch(text) is None:
        raise ValueError("has bytes that no field may have")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"{text!r} is no path")
    return text


def _words(text: str) -> tuple[str, ...]:
    return tuple(map(_text, _list(text)))


def _media_types(text: str) -> tuple[str, ...]:
    """Without their parameters."""
    return tuple(one.partition(";")[0].strip().lower() for one in _list(text))


def _networks(text: str) -> tuple[model.Network, ...]:
    return tuple(ip_network(one, strict=False) for one in _list(text))


def _field_name(text: str) -> str:
    if FIELD.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no name of a field")
    return text


def _redirect_scheme(options: _MiddlewareOptions) -> model.Middleware:
    scheme = options.read("scheme", str.lower)
    if scheme not in ("http", "https"):
        raise LabelError("scheme", f"{scheme!r} is neither http nor https")
    port = options.read("port", lambda text: str(_positive(text)), "")
    return model.RedirectScheme(scheme, options.read("permanent", _flag, False), port)


def _redirect_regex(options: _MiddlewareOptions) -> model.Middleware:
    return model.RedirectRegex(
        options.read("regex", Expression),
        options.read("replacement", _text),
        options.read("permanent", _flag, False),
    )


def _strip_prefix(options: _MiddlewareOptions) -> model.Middleware:
    options.read("forceslash", _flag, True)
    return model.StripPrefix(options.read("prefixes", lambda text: tuple(map(_path, _list(text)))))


def _strip_prefix_regex(options: _MiddlewareOptions) -> model.Middleware:
    return model.StripPrefixRegex(
        options.read("regex", lambda text: tuple(Expression(one) for one in _list(text)))
    )


def _headers(options: _MiddlewareOptions) -> model.Middleware:
    request = [_field(*one) for one in options.below("customrequestheaders")]
    response = [_field(*one) for one in options.below("customresponseheaders")]
    age = options.read("stsseconds", _positive, 0)
    within = options.read("stsincludesubdomains", _flag, False)
    preload = options.read("stspreload", _flag, False)
    if age:
        parts = [f"max-age={age}", *["includeSubDomains"] * within, *["preload"] * preload]
        response.append(("Strict-Transport-Security", "; ".join(parts)))
    for option, name, value in _SWITCHED:
        if options.read(option, _flag, False):
            response.append((name, value))
    for option, name in _NAMED:
        if value := options.read(option, str, ""):
            response.append(_field(name, value))
    options.read("forcestsheader", _flag, True)  # browsers heed it after TLS only
    return model.Headers(tuple(request), tuple(response), _cors(options))


def _cors(options: _MiddlewareOptions) -> model.Cors | None:
    cors = model.Cors(
        origins=options.read("accesscontrolalloworiginlist", _words, ()),
        expressions=options.read(
            "accesscontrolalloworiginlistregex", lambda text: tuple(map(Expression, _list(text))), ()
        ),
        methods=options.read("accesscontrolallowmethods", _words, ()),
        headers=options.read("accesscontrolallowheaders", _words, ()),
        exposed=options.read("accesscontrolexposeheaders", _words, ()),
        credentials=options.read("accesscontrolallowcredentials", _flag, False),
        max_age=options.read("accesscontrolmaxage", _count, 0),
    )
    vary = options.read("addvaryheader", _flag, False)
    return replace(cors, vary=vary) if cors != model.Cors() else None


_SWITCHED = (
    ("framedeny", "X-Frame-Options", "DENY"),
    ("contenttypenosniff", "X-Content-Type-Options", "nosniff"),
    ("browserxssfilter", "X-XSS-Protection", "1; mode=block"),
)
_NAMED = (
    ("customframeoptionsvalue", "X-Frame-Options"),
    ("contentsecuritypolicy", "Content-Security-Policy"),
    ("contentsecuritypolicyreportonly", "Content-Security-Policy-Report-Only"),
    ("custombrowserxssvalue", "X-XSS-Protection"),
    ("referrerpolicy", "Referrer-Policy"),
    ("permissionspolicy", "Permissions-Policy"),
)


def _field(name: str, value: str) -> tuple[str, str]:
    if FIELD.fullmatch(name) is None or name.lower() in model.NEVER_SET - {"host"}:
        raise LabelError(name, f"{name!r} is no field that can be set")
    if VALUE.fullmatch(value) is None:
        raise LabelError(name, "the value has bytes that no field may have")
    return name, value


def _basic_auth(options: _MiddlewareOptions) -> model.Middleware:
    users = []
    for entry in options.read("users", _list):
        name, colon, hashed = entry.partition(":")
        if not colon or not name:
            raise LabelError("users", "an entry is not NAME:HASH")
        if not known_hash(hashed):
            known = "bcrypt up to cost 12, apr1, SHA"
            raise LabelError("users", f"the hash of {name!r} is not of htpasswd's ({known})")
        users.append((name, hashed))
    realm = options.read("realm", _text, "traefik")
    removed = options.read("removeheader", _flag, False)
    header: str = "".join(options.read("headerfield", _settable, ()))
    if header and any(VALUE.fullmatch(name) is None for name, _ in users):
        raise LabelError("headerfield", "a name has bytes that no field may have")
    return model.BasicAuth(tuple(users), realm, not removed, header)


def _forward_auth(options: _MiddlewareOptions) -> model.Middleware:
    auth: model.ForwardAuth = options.read("address", _address)
    return replace(
        auth,
        trust=options.read("trustforwardheader", _flag, False),
        request_headers=options.read("authrequestheaders", _field_names, ()),
        response_headers=options.read("authresponseheaders", _settable, ()),
        response_expression=options.read("authresponseheadersregex", _expression, ()) or None,
        cookies=options.read("addauthcookiestoresponse", _field_names, ()),
        keep_location=options.read("preservelocationheader", _flag, False),
        keep_method=options.read("preserverequestmethod", _flag, False),
    )


def _address(text: str) -> model.ForwardAuth:
    url = urlsplit(text)
    host = (url.hostname or "").rstrip(".")
    if url.scheme not in ("http", "https") or _HOST.fullmatch(host) is None or "@" in url.netloc:
        raise ValueError(f"{text!r} is no address as http://NAME:PORT/PATH")
    target = _path((url.path or "/") + (f"?{url.query}" if url.query else ""))
    shown = f"[{host}]" if ":" in host else host
    authority = f"{shown}:{url.port}" if url.port else shown
    tls = url.scheme == "https"
    whole = f"{url.scheme}://{authority}{target}"
    return model.ForwardAuth(whole, host, url.port or (443 if tls else 80), target, authority, tls)


def _expression(text: str) -> Expression | None:
    return Expression(text) if text else None


def _field_names(text: str) -> tuple[str, ...]:
    return tuple(map(_field_name, _list(text)))


def _settable(text: str) -> tuple[str, ...]:
    names = _field_names(text)
    if never := [name for name in names if name.lower() in model.NEVER_SET]:
        raise ValueError(f"{never[0]!r} is no field that can be set")
    return names


def _compress(options: _MiddlewareOptions) -> model.Middleware:
    options.read("", _text, "true")
    included = options.read("includedcontenttypes", _media_types, ())
    excluded = options.read("excludedcontenttypes", _media_types, ())
    if included and excluded:
        raise LabelError("includedcontenttypes", "excludes excludedcontenttypes")
    return model.Compress(options.read("minresponsebodybytes", _count, 1024), included, excluded)


def _errors(options: _MiddlewareOptions) -> model.Middleware:
    service: str = options.read("service", _text)
    return model.ErrorPages(
        options.read("status", lambda text: tuple(map(_statuses, _list(text)))),
        service.lower().removesuffix("@swarm").removesuffix("@docker"),
        options.read("query", _path, "/"),
    )


def _statuses(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    found = (_positive(low.strip()), _positive((high if dash else low).strip()))
    if not 200 <= found[0] <= found[1] <= 599:
        raise ValueError(f"{text!r} is no status, or range of them, from 200 to 599")
    return found


def _ip_allow_list(options: _MiddlewareOptions) -> model.Middleware:
    status = options.read("rejectstatuscode", _positive, 403)
    if not 400 <= status <= 599:
        raise LabelError("rejectstatuscode", f"{status} is not from 400 to 599")
    return model.IpAllowList(options.read("sourcerange", _networks), _ip_strategy(options, ""), status)


def _ip_strategy(options: _MiddlewareOptions, within: str) -> model.IpStrategy:
    options.read(f"{within}ipstrategy", _text, "true")
    return model.IpStrategy(
        options.read(f"{within}ipstrategy.depth", _count, 0),
        options.read(f"{within}ipstrategy.excludedips", _networks, ()),
    )


def _source(options: _MiddlewareOptions, default: model.ClientKeySource) -> model.ClientKeySource:
    """Where nothing is said, or several things at once that exclude each other, it cannot be told apart."""
    strategy = _ip_strategy(options, "sourcecriterion.")
    prefix = options.read("sourcecriterion.ipstrategy.ipv6subnet", _count, 0)
    if prefix > 128:
        raise LabelError("sourcecriterion.ipstrategy.ipv6subnet", f"{prefix} is more than 128")
    header = options.read("sourcecriterion.requestheadername", _field_name, "")
    host = options.read("sourcecriterion.requesthost", _flag, False)
    if bool(header) + host + (strategy.named or prefix > 0) > 1:
        raise LabelError("sourcecriterion", "several criteria")
    found = model.ClientKeySource(header, host, strategy, prefix)
    return found if found != model.ClientKeySource() else default


def _rate_limit(options: _MiddlewareOptions) -> model.Middleware:
    period = options.read("period", duration, 1.0)
    average, burst = options.read("average", _count, 0), options.read("burst", _positive, 1)
    source = _source(options, model.ClientKeySource())
    return model.RateLimit(average / period, burst, source) if average else NOTHING


def _in_flight(options: _MiddlewareOptions) -> model.Middleware:
    # Without a criterion it is the host that is asked for, with Traefik.
    return model.InFlightReq(
        options.read("amount", _positive), _source(options, model.ClientKeySource(host=True))
    )


def _buffering(options: _MiddlewareOptions) -> model.Middleware:
    most = options.read("maxrequestbodybytes", _count, 0)
    return model.BodyLimit(most) if most else NOTHING


_KINDS: Mapping[str, Callable[[_MiddlewareOptions], model.Middleware]] = {
    "addprefix": lambda options: model.AddPrefix(options.read("prefix", _path)),
    "basicauth": _basic_auth,
    "buffering": _buffering,
    "chain": lambda options: model.Chain(options.read("middlewares", references)),
    "compress": _compress,
    "errors": _errors,
    "forwardauth": _forward_auth,
    "headers": _headers,
    "inflightreq": _in_flight,
    "ipallowlist": _ip_allow_list,
    "ipwhitelist": _ip_allow_list,  # v2's name of it
    "ratelimit": _rate_limit,
    "redirectregex": _redirect_regex,
    "redirectscheme": _redirect_scheme,
    "replacepath": lambda options: model.ReplacePath(options.read("path", _path)),
    "replacepathregex": lambda options: model.ReplacePathRegex(
        options.read("regex", Expression), options.read("replacement", str)
    ),
    "retry": lambda options: model.Retry(options.read("attempts", _positive)),
    "stripprefix": _strip_prefix,
    "stripprefixregex": _strip_prefix_regex,
}


def credentials(value: bytes) -> tuple[str, str] | None:
    """Name and password of an Authorization field (RFC 7617); None when it holds none."""
    scheme, _, encoded = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode()
    except ValueError:
        return None
    name, colon, password = text.partition(":")
    return (name, password) if colon else None
