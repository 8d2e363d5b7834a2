"""Answering names: a query's bytes in, a reply's bytes out.

udp_server          The fast path: sockets in, replies out. `_drain_batch` is guarded by `make bench-dns`
tcp_server          DNS over TCP (RFC 7766): length prefix, any number of queries on a connection
connection_limiter  Who may stay on a TCP port that many want
node_listener       The explicit resolver: addresses of the node on which whoever is pointed at us may ask
mmsg                Many UDP datagrams with one system call: recvmmsg(2) and sendmmsg(2), through ctypes
resolver            The brain, one per node: bytes of a query and who asks → bytes of a reply
wire                DNS queries as bytes, and the replies to them (RFC 1035, EDNS0 of RFC 6891)
reply_cache         Ready replies, found by the query's very bytes after its id
scope               An asker's view: the networks it is on
lookup              The decision: question + scope + table → records, NODATA, or not ours
name_table          Which names exist on which network: an index that follows the catalogue in O(changed)
name_index          Key → owners, for what nearly always has one owner
names               What everything is called: a service, a task, a container
name_policy         Where we may differ from Docker's resolver in what a name means. Each is a key under
srv                 Where a service's ports are, by name: `_http._tcp.web` (RFC 2782
reply_builder       An answer as bytes: the replies, without their ids
forward             Forwarding what is not a name of the Swarm, to the servers that its asker may reach
explain             Why an asker gets what it gets, in words: for `mesh resolve`
query_log           The query log: one line for every n-th query, who asked what and what came of it
stats               What is counted, as plain integers: the resolver adds, telemetry reads
config              What an operator may set, and the limits that nobody needs to
"""
