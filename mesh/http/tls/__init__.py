"""TLS with clients: what they ask for, and with which certificate they are answered.

sni_peek           Waiting for the first message of a TLS connection, without taking it
client_hello       For whom a TLS connection is, read from its first message without taking part in it
handshake_base     How a TLS connection begins: its socket is watched, for a limited time
server_handshake   A TLS handshake on a watched socket: until it is done, has failed
handshake_places   Who gets a place among the TLS handshakes under way, and who gives way for it
certificate_store  Certificates from folders, chosen by the name that a client asks for
"""
