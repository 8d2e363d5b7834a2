"""HTTP between clients and tasks: routed, changed, balanced.

downstream       The client's side: entry points, listeners, connections
tls              TLS with clients: what they ask for, and with which certificate they are answered
codec            Bytes to messages and back, read strictly. Pure
routing          From a request to its route and service
hosts            Whose a host is, or a path of it. Pure
labels           Routers, services and middlewares read from labels. Pure
config           Routers, services and middlewares as values. Pure
middleware       What a route's middlewares do to a request and its response
request_plan     A route's middlewares at work: each looks at the request and changes it
exchange         One request and its response, from a client's connection to an endpoint's and back
interfaces       What an exchange, its client, its endpoint and the pool need of each other
endpoint_pool    The endpoints of one HTTP service: who is next, what is known of them
upstream         The endpoint's side: services, their endpoints, connections to tasks
runtime          What all HTTP listeners share: one poller, one clock, ids of requests
request_timeout  A time limit for all of a request and its response, whoever takes the time
h2_transport     An HTTP/2 connection on a watched socket, whichever side of it we are
byte_budget      How many bytes of requests and responses under way may be held in memory, and for whom
least_rate       The least rate at which a client has to send a body and to read a response
password_queue   Passwords that are compared with slow hashes: in a thread of their own, one at a time
local_reply      Our own answers: who failed and the request's id, nothing of what stands behind us
faults           What can go wrong with a request, whose fault it is, and the status that says so
limits           Every limit of the HTTP side that no label sets, with its reason. Seconds, bytes, counts
stats            What is counted of HTTP, as plain integers: exchanges add
access_log       One line for each request that is over: JSON
"""
