"""TODO mesh/net/limits"""
