"""From a request to its route and service.

reference_resolver  Routers, services and middlewares of all stacks, joined by name
route_table         Which router a request is for. Looked up by host and path
request_view        A request's head as rules see it. Made where there are rules
router              Host-routed HTTP: entry points shared by all services, as their labels say
routed_ports        Which ports of which tasks layer 7 serves
passthrough         TLS connections that are passed on as they are: whose a name is at an entry point
"""
