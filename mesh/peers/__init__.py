"""What sidecars say to each other, by mutual TLS with the Swarm's own certificates.

swarm_tls          Mutual TLS with the Swarm's own certificates: no secret of ours to distribute
manager_links      A line to the sidecar of each manager, as long as it is one: made, kept
connection_faults  Why a connection to another sidecar failed, in words for the log
documents          JSON from another sidecar, validated as a whole against a dataclass
refusals           What peers were refused: counted by reason, and the last ones by name for a while
report             What a node says of itself, from every node to the managers
feed               The cluster's view, from managers to workers
tunnel             Connections to tasks on a network that this node takes no part in
"""
