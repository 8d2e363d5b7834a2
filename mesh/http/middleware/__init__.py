"""What a route's middlewares do to a request and its response.

table            The table of all kinds, in their order
kinds            One file for each kind
kind             What the table knows of one kind
options          The options of one middleware, as its labels write them
chain            The handlers of a route's middlewares, run in order
client_key       The key that tells clients apart for limits
redirect         The answer of the kinds that redirect
path_rewrite     Changes of a request's path, for the kinds that rewrite it
upstream_reply   A service's response turned into a reply to the client
runner           Runs the handlers for an exchange, does what they wait for, and adds their response filters
response_filter  The base of response filters: the client's side of an exchange, with changes of the response
"""
