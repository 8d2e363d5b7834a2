"""Fields that say who the client is or what it has asked for: who may send them, and under which names. Pure.

Names are compared in canonical form: lower case, with `-` for everything but letters and digits. CGI, WSGI,
PHP and Rack give `X_Forwarded_For`, and some also `X.Forwarded.For`, to the application as the same variable
as `X-Forwarded-For`. So other spellings of a protected name are never passed on, and a field that is set
replaces all spellings.
"""

import re
from collections.abc import Iterable

_CANONICAL = bytes(
    one if chr(one) in "\r\n:" else ord(chr(one).lower()) if one < 0x80 and chr(one).isalnum() else ord("-")
    for one in range(256)
)

# The proxy sets these for each request; a trusted proxy may have set them before.
_OURS = rb"x-forwarded(?:-[^:\n]*)?|x-real-ip|x-request-id|x-replaced-path|forwarded"
# Other proxies and CDNs set these. A client that is not trusted has made them up.
_OF_OTHER_PROXIES = (
    rb"x-(?:true-client-ip|client-ip|client-cert[^:\n]*|cluster-client-ip|originating-ip|proxyuser-ip"
    rb"|remote-(?:ip|addr)|original-[^:\n]*|rewrite-ur[il]|host|http-host-override|(?:url-)?scheme"
    rb"|azure-(?:clientip|socketip)|appengine-(?:user-ip|remote-addr)|arr-(?:ssl|clientcert)"
    rb"|envoy-(?:external-address|original-[^:\n]*)|ssl-client-[^:\n]*|accel-[^:\n]*|sendfile-type)"
    rb"|true-client-ip|client-ip|proxy-client-ip|wl-proxy-client-ip|cf-connecting-ip(?:v6)?|cf-visitor"
    rb"|fastly-client-ip|fly-client-ip|front-end-https|ssl-client-[^:\n]*"
)
_NEVER = rb"proxy"  # CGI makes HTTP_PROXY of it, in which HTTP clients look for their proxy

# RFC 9110 section 6.5.1: what frames, routes, authenticates, controls caches or changes the request or the
# content is no trailer, nor is what browsers take for a site's policy.
_NO_TRAILER = (
    rb"(?:proxy-|www-)?(?:authenticate|authorization|authentication-info)|cookie2?|set-cookie2?"
    rb"|connection|keep-alive|proxy-connection|te|trailer|transfer-encoding|upgrade|host|expect|max-forwards"
    rb"|content-(?:encoding|length|location|range|type|disposition|security-policy[^:\n]*)"
    rb"|cache-control|pragma|age|expires|date|location|retry-after|vary|warning|refresh"
    rb"|range|if-[^:\n]*|accept(?:-[^:\n]*)?|origin|referer|user-agent|http2-settings|alt-svc|via"
    rb"|access-control-[^:\n]*|cross-origin-[^:\n]*|sec-[^:\n]*|strict-transport-security|clear-site-data"
    rb"|x-(?:http-)?method(?:-override)?|x-frame-options|x-content-type-options|x-xss-protection"
)


def _lines(*names: bytes) -> re.Pattern[bytes]:
    """Lines of these names in a canonical block with a line end in front."""
    return re.compile(rb"\n(?:" + b"|".join(names) + rb"):[^\n]*")


_FROM_STRANGERS = _lines(_OURS, _OF_OTHER_PROXIES, _NEVER)
_FROM_PROXIES = _lines(_OURS, _NEVER)
_AS_TRAILERS = _lines(_OURS, _OF_OTHER_PROXIES, _NEVER, _NO_TRAILER)
_PROTECTED = re.compile(rb"(?:" + _OURS + rb"|" + _OF_OTHER_PROXIES + rb")")


def canonical(name: bytes) -> bytes:
    """The form in which names are compared."""
    return name.translate(_CANONICAL)


def is_protected(name: bytes) -> bool:
    """A field of this name stays, even if the client's Connection names it."""
    return _PROTECTED.fullmatch(name.translate(_CANONICAL)) is not None


def from_stranger(block: bytes) -> bytes:
    """Field lines of a client that is not trusted, without those that only proxies may send."""
    return _without(block, _FROM_STRANGERS)


def from_proxy(block: bytes) -> bytes:
    """Field lines of a trusted proxy, without other spellings of protected names."""
    return _without(block, _FROM_PROXIES, misspelled=True)


def as_trailers(block: bytes) -> bytes:
    """Those of these field lines that may be trailers, of a request or a response. Each ends with CRLF."""
    return _without(block, _AS_TRAILERS)


def without_names(block: bytes, names: Iterable[bytes]) -> bytes:
    """Field lines without those of these names, however they are spelled."""
    canon = b"\n" + block.translate(_CANONICAL)
    for name in names:
        wanted = b"\n%b:" % name.translate(_CANONICAL)
        while (at := canon.find(wanted)) >= 0:
            end = canon.find(b"\n", at + 1)
            block, canon = block[:at] + block[end:], canon[:at] + canon[end:]
    return block


def _without(block: bytes, lines: re.Pattern[bytes], *, misspelled: bool = False) -> bytes:
    """`misspelled`: a line whose name is written in the canonical way stays."""
    canon = b"\n" + block.translate(_CANONICAL)
    if lines.search(canon) is None:  # as nearly always
        return block
    parts, after = [], 0
    for found in lines.finditer(canon):
        start, end = found.span()
        if misspelled:
            name = canon[start + 1 : canon.find(b":", start)]
            if block[start : start + len(name)].lower() == name and name != _NEVER:
                continue
        parts.append(block[after:start])
        after = end
    if not parts:
        return block
    parts.append(block[after:])
    return b"".join(parts)
