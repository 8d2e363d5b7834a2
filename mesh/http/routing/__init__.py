"""TODO mesh/http/routing"""
