"""Fair shares of what is limited: memory, connections, descriptors, places, turns.

cgroup            The limits that a container runtime sets: memory and processes of this control group
descriptors       Descriptors of this process: how many it may have, and those that clients do not get
per_client_limit  How many connections each client's address has
connection_guard  Keeps the connections of an aiohttp server few and at work
fair_shares       Who holds how many of a limited number of places
fair_queue        Work that waits for its turn, so that nobody's work waits for somebody else's flood
semaphore         A number of things that may be under way at once
"""
