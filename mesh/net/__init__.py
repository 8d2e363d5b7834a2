"""Namespaces and sockets, and the only place that starts tasks."""
