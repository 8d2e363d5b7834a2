"""`mesh.vip.*` labels."""

from mesh.balance.policies import Policy
from mesh.catalog.model import Service
from mesh.labels.vips import Locality, VipPlan, vip_plan


def labelled(**labels: str) -> VipPlan:
    return vip_plan(Service("w", "web", labels={f"mesh.vip.{key}": text for key, text in labels.items()}))


def test_defaults_and_values() -> None:
    assert labelled() == VipPlan()
    assert labelled(policy=" source_hash", locality="node") == VipPlan(Policy.SOURCE_HASH, Locality.NODE)


def test_faults_are_named_and_the_default_is_used() -> None:
    found = labelled(policy="least_conn", locality="rack", colour="red")
    assert (found.policy, found.locality) == (Policy.ROUND_ROBIN, Locality.ANY)
    assert [(one.file, one.key, one.message) for one in found.problems] == [
        ("web", "mesh.vip.colour", "unknown option, known are locality, policy; ignored"),
        ("web", "mesh.vip.locality", "'rack' is not one of any, node; any is used"),
        (
            "web",
            "mesh.vip.policy",
            "'least_conn' is not one of round_robin, random, source_hash; round_robin is used",
        ),
    ]
