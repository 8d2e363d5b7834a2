"""TODO mesh/labels"""
