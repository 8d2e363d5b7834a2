"""TODO mesh/peers/tunnel"""
