"""Certificates from an authority by ACME (RFC 8555), ordered by one node and held by all.

schedule           Which certificates are to be ordered now. Pure: what there is
issuer             The node that leads the Swarm orders what is due, one certificate after the other
client             What is asked of the authority: an account, and certificates by HTTP-01 (RFC 8555
self_check         Before an authority looks, we look
certificate_store  What this node has of an authority: the account and the certificates
replication        Every node has what any manager has: it asks each manager's sidecar
messages           What nodes tell each other of certificates, as bytes and back
bounded_http       The library's HTTP, with limits

Any node may be asked to prove that a name is ours (HTTP-01): the answer is the token and the thumbprint of
the account's key, so it takes no word from the node that orders.
"""
