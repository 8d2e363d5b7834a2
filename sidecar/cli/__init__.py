"""Commands that people type.

main         The command line: `mesh COMMAND`
check        `mesh check FILE`: is it good, and what is it? The kind is seen from its keys
demo         `mesh demo`: the whole sidecar on one machine, without Docker and without root
doctor       `mesh doctor`: looks at this node and its cluster, and has what it sees judged
node_facts   What `mesh doctor` reads of this node's kernel: settings, MTUs, conntrack's fill
peer_checks  Checks of other nodes: which ports answer, which sidecar runs there, its clock
"""
