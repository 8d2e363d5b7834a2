"""Routers, services and middlewares as values. Pure.

model             Routers, services and middlewares as labels declare them: frozen values
rule_parser       Traefik's rule language (v3) read into `matching`'s values
matchers          What a router asks of a request, as values: rules are read into these
regex             Regular expressions from labels, tried on what clients send: RE2, as in Traefik
htpasswd          Passwords against htpasswd's hashes: bcrypt, apr1 (Apache's MD5), SHA-1
owner             The stack that a router or service belongs to, and how it is shown to people
internal_targets  Addresses that no label sends us to: what listens there trusts who is on the machine
acme_domains      Which certificates the routers want from the authority
"""
