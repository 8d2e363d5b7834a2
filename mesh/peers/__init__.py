"""TODO mesh/peers"""
