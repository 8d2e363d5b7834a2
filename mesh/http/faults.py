"""What can go wrong with a request, whose fault it is, and the status that says so: one table."""

from enum import Enum

from mesh.errors import WireError


class FaultSide(Enum):
    """Whose fault."""

    CLIENT = "client"
    ROUTE = "route"
    ENDPOINT = "endpoint"
    US = "proxy"


class HttpFault(Enum):
    """Each: status, whose fault, and the reason that metrics, log and page give."""

    BAD_HEAD = 400, FaultSide.CLIENT, "malformed"
    BAD_PATH = 400, FaultSide.CLIENT, "ambiguous_path"  # a server behind us could read it as another path
    BAD_BODY = 400, FaultSide.CLIENT, "malformed_body"
    UNAUTHORIZED = 401, FaultSide.CLIENT, "unauthorized"
    FORBIDDEN = 403, FaultSide.CLIENT, "forbidden"
    NO_ROUTE = 404, FaultSide.ROUTE, "no_route"
    METHOD = 405, FaultSide.CLIENT, "method"
    H2_PROTOCOL = 400, FaultSide.CLIENT, "h2_protocol"  # a connection that cannot go on
    H2_FLOOD = 400, FaultSide.CLIENT, "h2_flood"  # of frames that achieve nothing, or without an end
    HEAD_TIMEOUT = 408, FaultSide.CLIENT, "head_timeout"
    BODY_TIMEOUT = 408, FaultSide.CLIENT, "body_timeout"
    BODY_TOO_LARGE = 413, FaultSide.CLIENT, "body_too_large"
    TARGET_TOO_LONG = 414, FaultSide.CLIENT, "target_too_long"
    EXPECTATION = 417, FaultSide.CLIENT, "expectation"
    TOO_MANY_REQUESTS = 429, FaultSide.CLIENT, "rate_limit"
    OVER_SHARE = 429, FaultSide.CLIENT, "over_share"  # more is held for its address than one may make us hold
    HEAD_TOO_LARGE = 431, FaultSide.CLIENT, "head_too_large"
    CLIENT_GONE = (
        499,
        FaultSide.CLIENT,
        "client_gone",
    )  # nobody is left to be told; for the log, as nginx writes it
    UNKNOWN_CODING = 501, FaultSide.CLIENT, "unknown_coding"
    BAD_RESPONSE = 502, FaultSide.ENDPOINT, "bad_response"
    ENDPOINT_CLOSED = 502, FaultSide.ENDPOINT, "closed"
    CONNECT_FAILED = 502, FaultSide.ENDPOINT, "connect"
    CERTIFICATE = 502, FaultSide.ENDPOINT, "certificate"  # not one to be believed
    TLS_FAILED = 502, FaultSide.ENDPOINT, "tls"
    NO_ENDPOINT = 503, FaultSide.ROUTE, "no_endpoint"
    OVERLOADED = 503, FaultSide.ENDPOINT, "overloaded"
    NO_VERDICT = 503, FaultSide.ENDPOINT, "auth_unavailable"
    FULL = 503, FaultSide.US, "full"
    CONNECT_TIMEOUT = 504, FaultSide.ENDPOINT, "connect_timeout"
    RESPONSE_TIMEOUT = 504, FaultSide.ENDPOINT, "response_timeout"
    TRY_TIMEOUT = 504, FaultSide.ENDPOINT, "try_timeout"  # of the last of those that were tried
    TIMEOUT = 504, FaultSide.ENDPOINT, "timeout"  # of all of it
    INTERNAL = 500, FaultSide.US, "internal"  # something of ours has failed at this request
    VERSION = 505, FaultSide.CLIENT, "version"

    @property
    def status(self) -> int:
        return int(self.value[0])

    @property
    def side(self) -> FaultSide:
        return self.value[1]

    @property
    def reason(self) -> str:
        return self.value[2]


class RequestRefused(WireError):
    """A message that is not passed on: `fault` says what the other side is told, the text what we log."""

    def __init__(self, fault: HttpFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault
