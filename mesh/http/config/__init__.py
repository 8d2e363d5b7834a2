"""Routers, services and middlewares as values. Pure.

model             Routers and HTTP services as labels declare them, and routes: frozen values
rule_parser       Parses Traefik's rule language (v3) into matchers
matchers          The conditions of a router's rule, as values
regex             Regular expressions from labels, matched against what clients send
htpasswd          Passwords against htpasswd's hashes: bcrypt, apr1 (Apache's MD5), SHA-1
owner             The stack that a router or service belongs to, and how it is shown to people
internal_targets  Addresses that labels cannot make the sidecar connect to
acme_domains      The certificates that routes need from the certificate authority
"""
