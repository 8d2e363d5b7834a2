"""Where we may differ from Docker's resolver in what a name means. Each is a key under `dns:` of mesh.yml.

The defaults are what we think is better; the other value of each is what Docker does.
"""

from dataclasses import dataclass
from enum import StrEnum

ANSWER_TTL = 5  # seconds; Docker's 600 outlive the tasks they name


class SharedAlias(StrEnum):
    """Which owners of a name answer an asker that belongs to a stack."""

    OWN_STACK = "own_stack"  # those of the asker's stack, if it has any of that name
    UNION = "union"  # all of the first network that knows the name


class Elsewhere(StrEnum):
    """What happens to a question about a name of ours to which we have no record."""

    NODATA = "nodata"  # the name exists, the record does not: upstreams are not asked
    FORWARD = "forward"


class Order(StrEnum):
    """In which order several records come. Either way each of them is first equally often."""

    ROTATE = "rotate"
    SHUFFLE = "shuffle"


@dataclass(frozen=True, slots=True)
class NamePolicy:
    """What a name means. `ttl` in seconds, where no label says another."""

    shared_alias: SharedAlias = SharedAlias.OWN_STACK
    empty_services: Elsewhere = Elsewhere.NODATA  # of services without a serving task
    other_types: Elsewhere = Elsewhere.NODATA  # all but A, AAAA, PTR and MX
    vip_ptr: bool = True  # virtual IPs have a PTR record
    srv: bool = True  # services have SRV records
    ttl: int = ANSWER_TTL
    order: Order = Order.ROTATE


OURS = NamePolicy()
DOCKERS = NamePolicy(
    shared_alias=SharedAlias.UNION,
    empty_services=Elsewhere.FORWARD,
    other_types=Elsewhere.FORWARD,
    vip_ptr=False,
    srv=False,
    order=Order.SHUFFLE,
    ttl=600,
)
