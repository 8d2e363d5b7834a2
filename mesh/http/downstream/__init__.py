"""TODO mesh/http/downstream"""
