"""The questions: which load, over what, and who can take part."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.l7 import loads, proxies
from benchmarks.l7.loads import Load
from benchmarks.l7.proxies import Proxy

# Another path for each request, as wrk is told.
VARIED = 'n = 0\nrequest = function() n = n + 1; return wrk.format("GET", "/varied/" .. n) end\n'
NEW = ("--header", "Connection: close")


def _everybody(_: Proxy) -> bool:
    return True


@dataclass(frozen=True)
class Scenario:
    title: str
    load: Load
    tls: bool = False
    who: Callable[[Proxy], bool] = _everybody
    application: Callable[[Path], list[str]] = field(default=proxies.application)


SCENARIOS = {
    "same": Scenario("small requests on connections that stay, all the same", loads.wrk()),
    "varied": Scenario(
        "small requests on connections that stay, all different, and so the responses",
        loads.wrk(script=VARIED),
    ),
    "connections": Scenario("a new connection for each request", loads.wrk("/", *NEW)),
    "large": Scenario("responses of a megabyte", loads.wrk("/large")),
    "h2": Scenario(
        "HTTP/2 over TLS, one connection with 100 streams", loads.h2load(), True, lambda one: one.h2
    ),
    "tls": Scenario("small requests over TLS on connections that stay", loads.wrk(), True),
    "handshakes": Scenario("a full TLS handshake for each request", loads.wrk("/", *NEW), True),
    "tls-large": Scenario("responses of a megabyte over TLS", loads.wrk("/large"), True),
    "sockets": Scenario(
        f"{loads.SOCKETS:,} WebSockets, a message of 64 bytes under way on each",
        loads.sockets(),
        who=lambda one: one.websockets,
        application=proxies.echo,
    ),
}
SAME = SCENARIOS["same"]
PACED = Scenario("the time of a request at a fixed rate", loads.paced())
