"""Does another sidecar take this one's place on the node when it ends? Pure.

When Swarm replaces our task (an update, a restart, a crash) the next one is here in seconds, and what the
kernel has been told stays right until then. When our service is removed, or the node drained, nobody comes.
"""

from mesh.catalog.snapshot import Snapshot


def has_successor(snapshot: Snapshot, service: str) -> bool:
    """`service`: id of the Swarm service that runs us, "" when none does."""
    here = snapshot.nodes.get(snapshot.this_node)
    drained = here is not None and here.availability == "drain"
    return bool(service) and service in snapshot.services and not drained
