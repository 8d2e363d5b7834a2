"""CARRY at layer 7: HTTP between clients and tasks.

head, framing     what a message says, read strictly (pure)
forwarding        what of a head goes on to the other side (pure)
path_check        paths that servers read in different ways (pure)
protected_fields  fields that say who the client is (pure)
handshake_places  who gives way among TLS handshakes (pure)
password_queue    slow hashes, in fair turns
faults, pages     what can go wrong, and what we say then (pure)
limits, timing    how much and how long
exchange          one request and its response: the state of both sides
h1_client         a client's connection              front            who accepts them
h1_upstream       a connection to a task             backend, target  which task, and its connections
steps, treating   what middlewares decide            around, aside     what they put around a client, or ask
port              `mode: http` on a published port   core, stats      what all of them share
"""
