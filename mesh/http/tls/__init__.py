"""TLS with clients: server names, handshakes, certificates.

handshake_places   Limits the TLS handshakes under way, in all and for each address. Pure
handshake_base     The beginning of a TLS connection: its socket is watched, for a limited time
client_hello       Reads the server name from a ClientHello. Pure
sni_peek           Waits for the ClientHello and leaves its bytes in the socket
server_handshake   A TLS handshake with a client on a watched socket
certificate_store  Certificates from folders, chosen by the server name of the client
"""
