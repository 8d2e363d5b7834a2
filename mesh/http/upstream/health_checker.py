"""Checks an HTTP service's endpoints from this node, and leaves those out that do not pass.

Every node that takes requests asks for itself: what counts is whether they can be answered from here. Each
endpoint has its own clock; CHECKS_AT_ONCE keeps a node with hundreds of them from asking all in one moment.
Where none passes all get requests: a wrong path in a label must not end a service.
"""

import logging
import random
import socket
from collections.abc import Callable, Mapping, Sequence

from mesh.balance.health_state import Pulse, Result
from mesh.balance.policies import Endpoint
from mesh.http.codec.proxy_headers import ClientInfo
from mesh.http.config.model import HealthCheck, HttpService, Scheme
from mesh.http.faults import HttpFault, RequestRefused
from mesh.http.runtime import HttpRuntime
from mesh.http.stats import ServiceStats
from mesh.http.upstream.health_check import REDIRECTS_MAX, onward, pause, question, verdict
from mesh.http.upstream.routed_service import RoutedTarget
from mesh.http.upstream.subrequest import Subrequest
from mesh.net.limits.semaphore import Semaphore

logger = logging.getLogger(__name__)

BUSY_SECONDS = 0.2  # until the next attempt, when too many others are under way
SPREAD = 0.2  # of a pause, by which checks are moved apart at random
_OURSELVES = ClientInfo("127.0.0.1", "http", 0)


class Checks:
    """Of one service. `told` gets those that are to be left out, whenever that changes."""

    def __init__(
        self,
        core: HttpRuntime,
        http: HttpService,
        connect: Callable[[], socket.socket],
        told: Callable[[Mapping[Endpoint, Result | None]], None],
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.core = core
        self.http = http
        self.check = http.check
        self.connect = connect
        self.draw = draw
        self.stats = core.stats_of(http.owner)
        self._told = told
        self._checked: dict[Endpoint, _Checked] = {}
        self._begun = False
        self._panic = False

    def update_endpoints(self, endpoints: Sequence[Endpoint]) -> None:
        """Those that it begins with are well until they fail; a new one has to pass first."""
        for gone in self._checked.keys() - set(endpoints):
            self._checked.pop(gone).stop()
        for new in [one for one in endpoints if one not in self._checked]:
            self._checked[new] = checked = _Checked(self, new, Pulse(not self._begun, self._begun))
            checked.wait(0.0 if self._begun else self.draw() * self.check.interval)
        self._begun = self._begun or bool(endpoints)
        self.tell()

    def tell(self) -> None:
        unwell = {one: checked.last for one, checked in self._checked.items() if not checked.pulse.well}
        panic = bool(unwell) and len(unwell) == len(self._checked) and None not in unwell.values()
        if panic and not self._panic:
            logger.warning("%s: no task passes its check, so all get requests", self.http.name)
        elif self._panic and not panic:
            logger.info("%s: there are tasks again that pass their check", self.http.name)
        self._panic = panic
        self._told(unwell)

    def close(self) -> None:
        for checked in self._checked.values():
            checked.stop()
        self._checked.clear()


class _Checked:
    """One endpoint: waiting for its next check, or being asked."""

    def __init__(self, checks: Checks, endpoint: Endpoint, pulse: Pulse) -> None:
        self.pulse = pulse
        self.last: Result | None = None
        self._checks = checks
        self._endpoint = endpoint
        self._target = _target(checks, endpoint)
        self._entry = 0.0
        self._aside: Subrequest | None = None
        self._path = ""
        self._redirects = 0
        self._has_place = False  # among the CHECKS_AT_ONCE

    def wait(self, seconds: float) -> None:
        self._entry = self._checks.core.deadlines.add(self, seconds)

    def on_due(self) -> None:
        self._entry = 0.0
        if not self._checks.core.checks.take(self._checks.http.owner):
            self.wait(BUSY_SECONDS)
            return
        self._has_place = True
        self._redirects = 0
        self._ask("")

    def stop(self) -> None:
        if self._entry:
            self._checks.core.deadlines.drop(self, self._entry)
        if self._aside is not None:
            self._aside.drop()
        self._give_place_back()
        self._target.close()

    def on_fault(self) -> None:
        """Something of ours has failed at it: it is asked again at its time."""
        aside, self._aside = self._aside, None
        self._give_place_back()
        if not self._entry:
            self.wait(self._checks.check.interval)
        if aside is not None:
            aside.drop()

    def _give_place_back(self) -> None:
        if self._has_place:
            self._has_place = False
            self._checks.core.checks.give_back(self._checks.http.owner)

    def _ask(self, path: str) -> None:
        check, deadlines = self._checks.check, self._checks.core.deadlines
        asked = question(check, self._endpoint, path)
        self._path = asked.path.decode()
        self._aside = Subrequest(deadlines, Semaphore(1), _OURSELVES, b"", self._answered, check.timeout)
        try:
            self._aside.ask(self._target, asked.method, asked.path, asked.lines, asked.body)
        except RequestRefused:  # the label's host is none
            self._found(Result.BROKEN)

    def _answered(self, aside: Subrequest) -> None:
        check = self._checks.check
        if aside.head is None:
            self._found(_RESULTS.get(aside.fault, Result.BROKEN))
            return
        further = onward(check, self._endpoint, self._path, aside.head)
        if further and self._redirects < REDIRECTS_MAX:
            self._redirects += 1
            self._ask(further)
        else:
            self._found(verdict(check, aside.head, aside.body))

    def _found(self, result: Result) -> None:
        checks = self._checks
        self._aside = None
        self._give_place_back()
        checks.stats.checks[result] += 1
        news = not self.pulse.well and result is not self.last
        self.last = result
        if self.pulse.take(result):
            state = "passes" if self.pulse.well else "fails"
            logger.info("%s: %s %s its check: %s", checks.http.name, self._endpoint, state, result)
            news = True
        if news:
            checks.tell()
        self.wait(pause(checks.check, self.pulse) * (1 + SPREAD * (checks.draw() - 0.5)))


# Why nothing came back. Without a fault it was given up because it took too long.
_RESULTS: dict[HttpFault | None, Result] = {
    None: Result.TIMEOUT,
    HttpFault.CONNECT_FAILED: Result.REFUSED,
    HttpFault.CONNECT_TIMEOUT: Result.TIMEOUT,
    HttpFault.RESPONSE_TIMEOUT: Result.TIMEOUT,
}


def _target(checks: Checks, endpoint: Endpoint) -> RoutedTarget:
    """As requests are sent there, but for what is done with many of them; and counted apart."""
    check, http = checks.check, checks.http
    scheme = check.scheme or http.scheme
    if check.grpc and scheme is Scheme.HTTP:
        scheme = Scheme.H2C
    alone = HttpService(
        http.name,
        http.owner,
        check.port or endpoint.port,
        scheme,
        tls_verify=http.tls_verify,
        tls_name=http.tls_name,
        tls_ca=http.tls_ca,
        response_timeout=check.timeout,
        attempts=1,
        outlier_failures=0,
    )
    target = RoutedTarget(checks.core, alone, checks.connect)
    target.stats = target.backend.stats = ServiceStats()
    target.connect_timeout = check.timeout
    target.update_endpoints((endpoint._replace(port=check.port or endpoint.port),))
    return target


def off(check: HealthCheck) -> bool:
    return not check.path and not check.grpc
