"""How a service's virtual IPs choose a task: its `mesh.vip.*` labels read, with every fault named. Pure.

A bad label never breaks a service: the default is used and the problem is reported.
"""

from dataclasses import dataclass
from enum import StrEnum

from mesh.balance.policies import Policy
from mesh.catalog.model import Service
from mesh.errors import Problem
from mesh.labels.reader import LabelReader
from mesh.labels.values import one_of

PREFIX = "mesh.vip."
POLICIES = (Policy.ROUND_ROBIN, Policy.RANDOM, Policy.SOURCE_HASH)  # what the kernel can follow


class Locality(StrEnum):
    """Which tasks a new connection may go to."""

    ANY = "any"
    NODE = "node"  # those on the client's node while there are any


@dataclass(frozen=True, slots=True)
class VipPlan:
    policy: Policy = Policy.ROUND_ROBIN
    locality: Locality = Locality.ANY
    problems: tuple[Problem, ...] = ()


DEFAULT = VipPlan()
_parse_policy = one_of({policy.value: policy for policy in POLICIES}, any_case=False)
_parse_locality = one_of({locality.value: locality for locality in Locality}, any_case=False)


def vip_plan(service: Service) -> VipPlan:
    """How the service's virtual IPs choose. `problems`: `file` is the service's name, `key` the label."""
    labels = {key: text for key, text in service.labels.items() if key.startswith(PREFIX)}
    if not labels:
        return DEFAULT
    reader = LabelReader(service.name, labels)
    locality = reader.read(PREFIX + "locality", _parse_locality, Locality.ANY)
    policy = reader.read(PREFIX + "policy", _parse_policy, Policy.ROUND_ROBIN)
    for key in labels.keys() - {PREFIX + "locality", PREFIX + "policy"}:
        reader.fault(key, "unknown option, known are locality, policy; ignored")
    return VipPlan(policy, locality, tuple(sorted(reader.problems, key=lambda problem: problem.key)))
