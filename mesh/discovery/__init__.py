"""How we LEARN the cluster: Docker (`docker`), a manager's feed, or a file (`file`).

`merge` decides which source wins where they differ.
"""
