"""Commands that people type.

main         The command line: `mesh COMMAND`
check        `mesh check FILE`: names all faults of a configuration or catalogue
demo         `mesh demo`: the whole sidecar on one machine, without Docker and without root
doctor       `mesh doctor`: reads the state of this node and its cluster, and prints a finding for each check
node_facts   What `mesh doctor` reads of this node's kernel: settings, MTUs, conntrack's fill
peer_checks  Checks of other nodes: which ports answer, which sidecar runs there, its clock
"""
