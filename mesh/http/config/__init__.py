"""TODO mesh/http/config"""
