"""The sidecar's side of its other processes: how they are started, what they may do, how both sides talk.

supervisor        Processes beside this one: started, told everything, started again when they end
privileges        Giving up privileges, for good
worker_main       A process beside the sidecar, as seen from inside
channel           Messages and sockets between two processes, in order
frames            The boundaries of messages in a stream of bytes
messages          A message as bytes, and back
port_messages     What passes between the sidecar and restricted processes that carry published ports
carried_ports     The published ports of one restricted process, as the sidecar tells it
shared_ports      Published ports that restricted processes carry: one listening socket for all
dns_supervisor    The sidecar's side of its DNS workers: what a new one is told, and what all are
dns_messages      What passes between the sidecar and its DNS workers: orders one way, counts the other
relay_supervisor  The sidecar's side of the processes that relay published ports. They start with the
relay_messages    What passes between the sidecar and the processes that relay: see `port_messages`
http_supervisor   The sidecar's side of the processes that serve HTTP. They start with the first port or
http_messages     What passes between the sidecar and the processes that serve HTTP, besides ports
socket_broker     Makes sockets in other namespaces for one restricted process, which may not enter any
socket_messages   What a restricted process and the sidecar say about sockets, on a pair of their own
socket_stock      Sockets of other namespaces in a restricted process: a small stock of each place
tunnel_broker     Tunnels for restricted processes: they have no certificate of the Swarm
edge_reach        How a restricted process reaches tasks: sockets and tunnels come from the sidecar
"""
