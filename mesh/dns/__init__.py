"""ANSWER names: which names exist on which network, and the server that says so.

    names      the table        (network, name) → who contributes what; kept in O(changed)
    scope      the asker        which networks it is on, in Docker's order
    answers    the decision     question + scope + table → records, NODATA, or not ours
    wire       the bytes        strict reading of queries and replies, writing of replies
    cache      the memory       query bytes → ready replies, dropped by name when the catalogue changes
    upstream   the others       forwarding what is not ours, each question once at a time
    resolver   the brain        one per node: all of the above behind `handle(bytes)`
    server     the fast path    a UDP socket; a hit is a dictionary look-up, and replies leave by the batch
    tcp        the other way    connections, which are not hot
    crowd      who may stay     which of them goes when there are too many
    stats      the counters     read by telemetry

names, scope, answers, wire, cache and crowd are pure: time and chance are arguments.
"""
