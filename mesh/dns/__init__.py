"""ANSWER names: which names exist on which network, and the server that says so."""
