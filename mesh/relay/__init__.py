"""CARRY in user space: the TCP relay of `mode: proxy`."""
