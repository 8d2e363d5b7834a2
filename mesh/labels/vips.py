"""How a service's virtual IPs choose a task: its `mesh.vip.*` labels read, with every fault named. Pure.

A bad label never breaks a service: the default is used and the problem is reported.
"""

from dataclasses import dataclass
from enum import StrEnum

from mesh.balance.policies import Policy
from mesh.catalog.model import Service
from mesh.errors import Problem

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


def vip_plan(service: Service) -> VipPlan:
    """How the service's virtual IPs choose. `problems`: `file` is the service's name, `key` the label."""
    labels = {key: text.strip() for key, text in service.labels.items() if key.startswith(PREFIX)}
    if not labels:
        return DEFAULT
    policy, locality, problems = Policy.ROUND_ROBIN, Locality.ANY, list[Problem]()
    for key, text in sorted(labels.items()):
        match key.removeprefix(PREFIX), text:
            case "policy", ("round_robin" | "random" | "source_hash"):
                policy = Policy(text)
            case "policy", _:
                problems.append(Problem(service.name, key, _not_one_of(text, POLICIES, policy)))
            case "locality", ("any" | "node"):
                locality = Locality(text)
            case "locality", _:
                problems.append(Problem(service.name, key, _not_one_of(text, tuple(Locality), locality)))
            case _:
                problems.append(
                    Problem(service.name, key, "unknown option, known are locality, policy; ignored")
                )
    return VipPlan(policy, locality, tuple(problems))


def _not_one_of(text: str, allowed: tuple[str, ...], default: str) -> str:
    return f"{text!r} is not one of {', '.join(allowed)}; {default} is used"
