"""What this kernel can do for us: found out by doing it, in a network namespace that ends with the call.

Each feature alone, so that the one that is missing has a name; then our own rules as they are loaded in
earnest, so that nothing is left untried.
"""

from collections.abc import Callable, Mapping

from mesh.balance.hash_slots import Choice, SlotDraw
from mesh.catalog.model import Protocol
from mesh.errors import KernelError
from mesh.kernel.netfilter import conntrack, nft
from mesh.kernel.netfilter.ctnetlink import FlowMatch
from mesh.kernel.return_rules import MARK_MASK, MARK_PREFIX, return_rules
from mesh.kernel.rulesets import DnsPorts, HostPath, PortTarget, container_rules, host_rules, ingress_rules
from mesh.net import routes
from mesh.net.netns import in_new_namespace

_NAT = "add table ip t\nadd chain ip t c {{ type nat hook {} priority {}; }}\nadd rule ip t c {}\n"
_MAP = "mod 2 map {{ 0 : 10.0.0.1, 1 : 10.0.0.2 }}"
_DELETE = "add table ip t\ndelete table ip t\n"
NOBODYS = FlowMatch(answers_from="192.0.2.1")  # an address for documentation: no flow is


def _nat(rule: str, hook: str = "prerouting", priority: int = -101) -> str:
    return _NAT.format(hook, priority, rule)


RULES: Mapping[str, str] = {
    "nat": _nat("ip protocol tcp dnat to 10.0.0.1:80"),
    "redirect": _nat("ip protocol tcp redirect to :8080"),
    "masquerade": _nat("masquerade", "postrouting", 99),
    "numgen": _nat("dnat to numgen inc " + _MAP.format()),
    "jhash": _nat("dnat to jhash ip saddr " + _MAP.format()),
    "fib": _nat("fib daddr type local accept"),
    "conntrack marks": _nat("ct status dnat ct mark set 0x1"),
    "reject": "add table ip t\nadd chain ip t c { type filter hook output priority 0; }\n"
    "add rule ip t c ip protocol tcp reject with tcp reset\n",
    "type route": "add table ip t\nadd chain ip t c { type route hook output priority -150; }\n"
    "add rule ip t c ct direction reply meta mark set ct mark\n",
    "set timeouts": "add table ip t\n"
    "add set ip t s { typeof ip protocol; flags dynamic,timeout; timeout 3s; }\n"
    "add element ip t s { tcp }\n"
    "add chain ip t c { type filter hook input priority 0; }\n"
    "add rule ip t c update @s { ip protocol }\n",
}

_CHOICES = [Choice(("10.0.0.1", "10.0.0.2"), draw) for draw in SlotDraw]
OURS: Mapping[str, str] = {
    "rules of containers": container_rules(
        {f"10.9.0.{n}": one for n, one in enumerate(_CHOICES, 1)}, DnsPorts(1, 1), ipvs=True
    ),
    "rules of the host": host_rules(
        HostPath("172.18.0.2"), {"80/tcp": PortTarget(80, Protocol.TCP, 80)}, {81: 8081}
    ),
    "rules of the ingress namespace": ingress_rules(
        {"80/tcp": PortTarget(80, Protocol.TCP, 80, _CHOICES[0], masqueraded=True)}, "172.18.0.2", "eth0"
    ),
    "rules for the way back": return_rules("eth0", "10.0.0.3", {"02:42:0a:00:00:02": MARK_PREFIX | 2}),
}


def tried() -> dict[str, str]:
    """Feature → why it does not work; "" when it does. KernelError: nothing can be tried here. Blocks."""
    return in_new_namespace(_try_all)


def _try_all() -> dict[str, str]:
    def load(text: str) -> Callable[[], object]:
        return lambda: nft.run(text)

    found = {name: _outcome(load(text + _DELETE)) for name, text in RULES.items()}
    found["conntrack over netlink"] = _outcome(lambda: conntrack.find(NOBODYS))
    found["policy routing"] = _outcome(lambda: routes.led(MARK_PREFIX, MARK_MASK))
    return found | {name: _outcome(load(text)) for name, text in OURS.items()}


def _outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except KernelError as error:
        return str(error)
    return ""
