"""TODO mesh/http/hosts"""
