"""What the nodes say of keeping the client's address, laid over what Swarm says of the nodes. Pure.

Swarm knows neither where a node's published ports enter the ingress network nor which of its tasks answer
through which entry, so each node's sidecar tells the managers' (`ReturnPath`), always all of it. A manager
keeps the last word of each node and lays it over its view.

A node that says nothing for a while is without its sidecar, but what that has set up in its tasks' namespaces
works on without it. So the last word stands until Swarm calls the node down or removes it.
"""

from collections.abc import Mapping
from dataclasses import replace

from mesh.catalog.model import NO_RETURN_PATH, Node, ReturnPath
from mesh.catalog.snapshot import Change
from mesh.discovery.swarm import ClusterView

DOWN = "down"  # a node's state


class ReturnPaths:
    """A manager's book of them."""

    def __init__(self) -> None:
        self._said: dict[str, ReturnPath] = {}  # by node
        self._nodes: Mapping[str, Node] = {}  # as Swarm has them

    def begin(self, known: Mapping[str, Node]) -> None:
        """This node is a manager from now on. What was known stands until the nodes speak."""
        self._said = {id_: one.return_path for id_, one in known.items() if one.return_path != NO_RETURN_PATH}
        self._nodes = {}

    def lay_over(self, view: ClusterView) -> ClusterView:
        """Swarm's new view, as it is to be told. Nodes that are gone or down are not believed any more."""
        self._nodes = view.nodes
        up = {id_ for id_, node in view.nodes.items() if node.state != DOWN}
        self._said = {id_: said for id_, said in self._said.items() if id_ in up}
        if not self._said:
            return view
        laid = {id_: replace(view.nodes[id_], return_path=said) for id_, said in self._said.items()}
        return replace(view, nodes={**view.nodes, **laid})

    def report(self, node: str, said: ReturnPath) -> Change:
        """The node's word; returns what that changes in the view."""
        known = self._nodes.get(node)
        if known is None or known.state == DOWN or self._said.get(node, NO_RETURN_PATH) == said:
            return Change()
        if said == NO_RETURN_PATH:
            self._said.pop(node, None)
        else:
            self._said[node] = said
        return Change(nodes={node: replace(known, return_path=said)})
