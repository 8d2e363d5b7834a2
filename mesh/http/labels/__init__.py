"""Routers, services and middlewares read from labels. Pure.

http         What a Swarm service's labels declare: routers, services
passthrough  TCP routers from Traefik's labels: connections that are passed on with their TLS
"""
