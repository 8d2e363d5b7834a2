"""From a request to its route and service.

reference_resolver  Routers, services and middlewares of all stacks, joined by name
route_table         Which router a request is for. Looked up by host and path
request_view        A request's head as rules see it. Made where there are rules
served_routes       The routes of all services' labels, as this node serves them
route_problems      What is wrong with labels, routes and endpoints, for people
router              Answers the requests of entry points: each is routed, or answered here
routed_ports        Which ports of which tasks layer 7 serves
passthrough         TLS connections that are passed on as they are: whose a name is at an entry point
"""
