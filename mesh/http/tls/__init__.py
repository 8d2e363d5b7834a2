"""TODO mesh/http/tls"""
