"""The endpoint's side: services, their endpoints, connections to tasks, and requests of our own.

service_registry   HTTP services with their endpoints, as they are reached from this node at present
service_lookup     Services that a middleware calls by an address, as an application would
network_reach      Where a service's tasks can be reached from on this node: which of its networks
routed_service     An HTTP service that labels declare, as exchanges use it: its policy, its cookie
service            An HTTP service as exchanges use it: its endpoints, how they are reached
tls                TLS to an HTTP service's tasks: whom to believe, and what is remembered of them
h1_connection      An HTTP/1.1 connection to an endpoint: one exchange at a time
h1_tls_connection  An HTTP/1.1 connection to an endpoint with TLS: as without, after a handshake
h2_connection      HTTP/2 connections to an endpoint, each shared by many exchanges
health_check       Active checks of an HTTP service's endpoints: what is asked, and what the answer says
health_checker     Checks an HTTP service's endpoints from this node
subrequest         A request of our own while a client's waits: somebody is asked who may come in
external_client    A request of our own to somebody outside the Swarm: a name of the node's resolver
mirror             Copies of a service's requests for another one, whose answers nobody gets
"""
