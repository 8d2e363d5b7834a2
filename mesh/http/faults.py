"""What can go wrong with a request, whose fault it is, and the status that says so: one table."""

from enum import Enum

from mesh.errors import WireError


class Side(Enum):
    """Whose fault."""

    CLIENT = "client"
    ROUTE = "route"
    ENDPOINT = "endpoint"
    US = "proxy"


class Fault(Enum):
    """Each: status, whose fault, and the reason that metrics, log and page give."""

    BAD_HEAD = 400, Side.CLIENT, "malformed"
    BAD_PATH = 400, Side.CLIENT, "ambiguous_path"  # a server behind us could read it as another path
    BAD_BODY = 400, Side.CLIENT, "malformed_body"
    UNAUTHORIZED = 401, Side.CLIENT, "unauthorized"
    FORBIDDEN = 403, Side.CLIENT, "forbidden"
    NO_ROUTE = 404, Side.ROUTE, "no_route"
    METHOD = 405, Side.CLIENT, "method"
    H2_PROTOCOL = 400, Side.CLIENT, "h2_protocol"  # a connection that cannot go on
    H2_FLOOD = 400, Side.CLIENT, "h2_flood"  # of frames that achieve nothing, or without an end
    HEAD_TIMEOUT = 408, Side.CLIENT, "head_timeout"
    BODY_TIMEOUT = 408, Side.CLIENT, "body_timeout"
    BODY_TOO_LARGE = 413, Side.CLIENT, "body_too_large"
    TARGET_TOO_LONG = 414, Side.CLIENT, "target_too_long"
    EXPECTATION = 417, Side.CLIENT, "expectation"
    TOO_MANY_REQUESTS = 429, Side.CLIENT, "rate_limit"
    OVER_SHARE = 429, Side.CLIENT, "over_share"  # more is held for its address than one may make us hold
    HEAD_TOO_LARGE = 431, Side.CLIENT, "head_too_large"
    CLIENT_GONE = (
        499,
        Side.CLIENT,
        "client_gone",
    )  # nobody is left to be told; for the log, as nginx writes it
    UNKNOWN_CODING = 501, Side.CLIENT, "unknown_coding"
    BAD_RESPONSE = 502, Side.ENDPOINT, "bad_response"
    ENDPOINT_CLOSED = 502, Side.ENDPOINT, "closed"
    CONNECT_FAILED = 502, Side.ENDPOINT, "connect"
    CERTIFICATE = 502, Side.ENDPOINT, "certificate"  # not one to be believed
    TLS_FAILED = 502, Side.ENDPOINT, "tls"
    NO_ENDPOINT = 503, Side.ROUTE, "no_endpoint"
    OVERLOADED = 503, Side.ENDPOINT, "overloaded"
    NO_VERDICT = 503, Side.ENDPOINT, "auth_unavailable"
    FULL = 503, Side.US, "full"
    CONNECT_TIMEOUT = 504, Side.ENDPOINT, "connect_timeout"
    RESPONSE_TIMEOUT = 504, Side.ENDPOINT, "response_timeout"
    TRY_TIMEOUT = 504, Side.ENDPOINT, "try_timeout"  # of the last of those that were tried
    TIMEOUT = 504, Side.ENDPOINT, "timeout"  # of all of it
    INTERNAL = 500, Side.US, "internal"  # something of ours has failed at this request
    VERSION = 505, Side.CLIENT, "version"

    @property
    def status(self) -> int:
        return int(self.value[0])

    @property
    def side(self) -> Side:
        return self.value[1]

    @property
    def reason(self) -> str:
        return self.value[2]


class Refused(WireError):
    """A message that is not passed on: `fault` says what the other side is told, the text what we log."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
