"""The client's side: entry points, listeners, connections.

entry_points    The listening sockets of the entry points. What cannot be bound is tried again
published_port  A published port in `mode: http`
listener        One listening socket that speaks HTTP: accepts clients, limits them, drains
interfaces      What a listener and its clients' connections need of each other
h1_connection   A client's HTTP/1.1 connection: a request is answered before the next is read. A fast path
h1_writer       What is sent to an HTTP/1.1 client: a queue, and the bytes that the kernel does not take yet
client_load     The bytes that are held for an HTTP/1.1 client, by kind
h2_connection   A client's HTTP/2 connection, and its requests
"""
