"""Connections to tasks on a network that this node takes no part in, through the sidecar of the task's node.

client       Asking another node's sidecar for a task, as a socket that is connected like any other
protocol     What is said at the beginning of a tunnel, a line each way: which task, and whether it is had
server       Connecting other nodes' sidecars to tasks of this node
task_lookup  Whose an address on a network is
shares       How many tunnels each peer may have, and who gives way when there is no room
copy         Bytes both ways between two streams, at the pace of the slower, until one of them ends
"""
