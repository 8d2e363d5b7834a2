"""Certificates from an authority by ACME (RFC 8555), ordered by one node and held by all.

    schedule    which are due, and when to try again (pure)
    told        what nodes tell each other of them (pure)
    kept        what this node has, in a folder
    authority   what is asked of the authority
    issuer      orders what is due, on the node that leads the Swarm
    sharing     every node gets what a manager has and it has not

Any node may be asked to prove that a name is ours (HTTP-01): the answer is the token and the thumbprint of
the account's key, so it takes no word from the node that orders.
"""
