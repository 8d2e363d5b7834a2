"""Published ports carried in user space: TCP and UDP.

port_reconciler  The ports this node carries in user space, kept as the catalogue says
port_interface   A relayed port as its owner knows it, whoever carries it: one `Port`, a `UdpPort`
tcp_port         A published port carried in user space: its listening socket
tcp_connection   One relayed connection from its accept to its end: whose it is, which task takes it
proxy_protocol   PROXY protocol headers: the client's address in front of the stream, written and read
tcp_proxy        Relayed connections that share their endpoints: whose turn it is, what was counted
splice           One relayed TCP connection: bytes both ways, half-close both ways
udp_port         A published UDP port carried in user space: a session per client
stats            What is counted of a relayed port, and the names of what can go wrong with a connection
"""
