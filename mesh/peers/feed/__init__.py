"""The cluster's view, from managers to workers.

server  The feed, on managers: the cluster's view to the sidecars of workers, first whole
client  The feed, on workers: the cluster's view from the sidecar of any manager that can be reached
codec   The feed's messages as bytes, and back
"""
