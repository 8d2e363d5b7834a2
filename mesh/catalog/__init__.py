"""WHAT the cluster is.

`model` has the entities, `snapshot` one immutable value of them all, `diff` the difference between two,
`store` the single mutable cell, `codec` the document form for files and people.
"""
