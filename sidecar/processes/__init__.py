"""What runs in processes of its own.

edge   `python -P -m sidecar.processes.edge MODULE FD UID GID MEMORY`: a restricted process
http   A restricted process that serves HTTP: entry points, and published ports of `mode: http`
relay  A restricted process that relays published ports, TCP and UDP
dns    A process that answers DNS beside the sidecar (`dns.workers`)
"""
