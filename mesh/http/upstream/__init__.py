"""TODO mesh/http/upstream"""
