"""TODO mesh/http/codec"""
