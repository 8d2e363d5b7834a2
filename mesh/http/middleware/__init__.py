"""TODO mesh/http/middleware"""
