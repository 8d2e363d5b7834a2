"""The admin API: what the sidecar says of itself.

listener     Keeping an HTTP surface on its address, although somebody else may hold the port for a while
api          The HTTP surfaces: what anybody may scrape, and what only this machine may ask
status_view  What the running sidecar says of itself: the admin API's and /metrics' view of all the pieces
explain      What `mesh explain` is told: gathers what is wanted and what the kernel and the relay have
client       One question to the admin API of the sidecar on this machine
tables       JSON of the admin API → sections with rows
html         The status page: the sections of `mesh status` as one HTML document that loads nothing from
"""
