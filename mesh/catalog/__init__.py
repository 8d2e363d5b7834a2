"""WHAT the cluster is: entities (`model`), one immutable value of them all (`snapshot`), the difference between
two (`diff`), the single mutable cell (`store`), and the document form for files, feeds and people (`codec`)."""
