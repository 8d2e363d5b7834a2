"""The stack that a router or service belongs to, and how it is shown to people. Pure."""

from mesh.catalog.model import Service


def owner_of(service: Service) -> str:
    """Whose its hosts and names are: its stack's, or its own. No stack has a space in its name."""
    return service.stack or f"service {service.name}"


def shown_owner(owner: str) -> str:
    return owner if owner.startswith("service ") else f"stack {owner}"
