"""`ipallowlist`: lets in clients of some networks. Pure."""

from dataclasses import dataclass, replace
from ipaddress import ip_address

from mesh.http.config.model import Middleware
from mesh.http.faults import HttpFault
from mesh.http.middleware.client_key import CONNECTED_ADDRESS, IpStrategy, client_address, parse_ip_strategy
from mesh.http.middleware.kind import MiddlewareKind, stateless
from mesh.http.middleware.options import LabelError, MiddlewareOptions
from mesh.http.request_plan import RequestContext, RequestPlan
from mesh.labels.values import IpNetwork, list_of, parse_network, parse_positive


@dataclass(frozen=True, slots=True)
class IpAllowList(Middleware):
    ranges: tuple[IpNetwork, ...]
    strategy: IpStrategy = CONNECTED_ADDRESS
    status: int = 403

    @property
    def uses_forwarded_address(self) -> bool:
        return self.strategy.is_set


def _parse(options: MiddlewareOptions) -> IpAllowList:
    status = options.read("rejectstatuscode", parse_positive, 403)
    if not 400 <= status <= 599:
        raise LabelError("rejectstatuscode", f"{status} is not from 400 to 599")
    ranges = options.read("sourcerange", list_of(parse_network))
    return IpAllowList(ranges, parse_ip_strategy(options, ""), status)


def _handle(configured: IpAllowList, context: RequestContext, plan: RequestPlan) -> None:
    try:
        client = ip_address(client_address(configured.strategy, context))
    except ValueError:  # the proxies in front have not named it
        client = None
    if client is None or not any(client in network for network in configured.ranges):
        plan.refuse(HttpFault.FORBIDDEN, context.request_id)
        assert plan.answer is not None
        plan.answer = replace(plan.answer, status=configured.status)


# `ipwhitelist` is Traefik v2's name of it.
KIND = MiddlewareKind(("ipallowlist", "ipwhitelist"), IpAllowList, _parse, stateless(_handle), guards=True)
