"""Namespaces and sockets, shares of what is limited, and the only place that starts tasks."""
