"""Choosing an endpoint. Pure: clock and chance are arguments.

candidates         The endpoints among which a connection's one is chosen, whatever the policy
policies           Which of the usable endpoints a new connection goes to. Pure
rendezvous         Source hash: a client keeps its endpoint, and when one goes only its own clients move
hash_slots         Policies as the kernel can follow them: a row of slots, and how a new flow draws one
slow_start         Slow start: a task that has just come gets its share little by little
peak_ewma          How long endpoints take
outlier_detection  Passive health: an endpoint that just kept failing is left alone for a while
health_state       Active probes: what is probed, and what the results mean
retry_budget       A budget of repeated requests: a share of those under way
endpoint_pool      The endpoints of one relayed port, and what it has experienced of them
"""
