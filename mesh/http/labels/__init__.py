"""Routers, services and middlewares read from labels. Pure.

sorted_labels        A service's labels for HTTP, sorted by what they are about
service_options      The options of HTTP services: option → parser of its value
router_options       The options of routers: option → parser of its value
traefik_services     HTTP services from `traefik.http.services.*`
traefik_routers      Routers from `traefik.http.routers.*`
traefik_middlewares  Middlewares from `traefik.http.middlewares.*`
mesh_routers         Routers and services from `mesh.http.*`
http                 What a Swarm service's labels declare: the entry function for all of these
passthrough          TCP routers from Traefik's labels: connections that are passed on with their TLS
"""
