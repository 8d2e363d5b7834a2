"""Parts of the library connected for this process.

data_plane     The pieces that carry traffic, for those who tell of them
container_dns  DNS inside captured containers: an endpoint's scope follows the catalogue
dns_of_all_processes  A captured container's DNS in the sidecar and its DNS workers, opened together
first_packets  A client's first packet to each port of this node, to be led through the node's rules
http           The HTTP side of the sidecar put together: what its parts share, the entry points
http_view      What people are told of the HTTP side: listeners, problems, routes
http_metrics   What the HTTP side has counted and knows of endpoints: of this process, and of all together
access_log     The access log: a line to standard output for each request that an entry point got
acme           Certificates from an authority put together: what is kept, who orders
acme_worker    Certificates that an authority has issued, as the HTTP side of any process sees them
successor      Does another sidecar take this one's place on the node when it ends?
"""
