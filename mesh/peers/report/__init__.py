"""What a node says of itself, from every node to the managers.

client  What is ending on this node, and its plain containers
server  Reports of the nodes, as managers take them: one small PUT at a time from each node
codec   What a node's sidecar says of its node to the managers' sidecars, as bytes and back
"""
