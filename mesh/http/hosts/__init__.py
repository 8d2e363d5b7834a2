"""Which stack owns a host, or a path of it. Pure.

claims       What routers claim of hosts and paths: areas, read from their rules
assigned     Hosts, and path prefixes of them, that the configuration assigns to stacks (`http.hosts`)
ownership    Which stack holds an area: the first to claim it, until it lets go
book         A manager's record of who holds what, added to the services of the cluster view
entitlement  Limits a router's rule to the hosts and paths that its stack holds
"""
