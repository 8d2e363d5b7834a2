"""TODO mesh/http/labels"""
