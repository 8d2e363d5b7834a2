"""One file for each kind of middleware. `middleware/table.py` lists them in their order.

A file has the kind's configuration, how labels are parsed into it, and what it does to requests and
responses.
"""
