"""What a route's middlewares do to a request and its response.

options          The options of Traefik's middlewares read into values
chain            The middlewares of a route, carried out in order
client_key       Whose request it is, for those middlewares that treat each source differently
cors             Pages of other origins: what is told to browsers, and preflights that are answered here
forward_auth     Somebody else says who may come in: what is asked, and what becomes of what was said
runner           Steps carried out for an exchange: what they have to wait for
response_filter  A client's side with something around it: what a middleware makes of responses
compress         Responses compressed on their way to clients that understand it (RFC 9110
error_pages      A page in place of a response whose status says that something went wrong
"""
