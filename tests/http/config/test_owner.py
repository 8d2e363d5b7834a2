"""The stack that a service belongs to."""

from mesh.catalog.model import Service
from mesh.http.config.owner import owner_of


def test_a_service_belongs_to_its_stack_or_to_itself() -> None:
    assert owner_of(Service("s", "web", labels={"com.docker.stack.namespace": "web"})) == "web"
    assert owner_of(Service("s", "web")) == "service web"
