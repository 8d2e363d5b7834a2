"""A connection to a task on a network that this node has nothing of, through the sidecar of the task's node.

    dial        asks: a socket whose other end leads there
    answering   is asked: connects to a task of its own node, if the asker is a node of this Swarm
    shares      how many tunnels each peer may have (pure)
    words       what they say to each other before the bytes are the task's (pure)
    pump        bytes both ways

Docker's overlay is on a node only while something of it is. A sidecar joins no network, so what its node
lacks it gets from a node that has it: mutual TLS with the Swarm's own certificates, one connection for each.
What a tunnel may lead to is decided by the node that is asked (`mesh.http.routed_ports`).
"""
