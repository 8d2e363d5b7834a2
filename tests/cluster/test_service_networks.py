"""Two tiers: a published proxy, and an application on an internal network that only the proxy reaches."""

from tests.support.swarm import Swarm, eventually


def test_the_inner_tier_is_reached_through_the_outer_one_only(swarm: Swarm) -> None:
    swarm.network("internal", "--subnet", "172.30.0.0/24")
    swarm.service("nodejs", "--network", "internal", "--replicas", "2")
    upstream = "UPSTREAM=http://nodejs:8080"
    swarm.service("proxy", "--network", "internal", "--publish", "80:8080", "--env", upstream)
    inner = {box.id[:12] for box in swarm.boxes("nodejs")}

    def through_the_proxy() -> bool:
        return set(swarm.served_by("swarm02", 4, path="/upstream/")) == inner

    eventually(through_the_proxy, "the client reaches both inner tasks through the proxy")
    assert swarm.get("swarm00", 8080, seconds=2) is None, "the inner tier is not published"
    for box in swarm.boxes("nodejs"):
        assert swarm.get(box.addresses["internal"], 8080, seconds=2) is None, "nor routed from outside"
