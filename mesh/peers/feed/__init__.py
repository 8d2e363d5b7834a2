"""TODO mesh/peers/feed"""
