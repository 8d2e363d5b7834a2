"""Whose a host is, or a path of it. Pure.

claims       What routers claim of the hosts and paths there are: areas, read from their rules
assigned     Hosts, and paths of them, that the configuration gives to stacks (`http.hosts`)
ownership    Whose a host is, or a path of it: who has it keeps it until it lets go
book         A manager's book of whose hosts are: laid over what Swarm says of its services
entitlement  What of a router's rule its stack may serve: the rule without what is others'
"""
