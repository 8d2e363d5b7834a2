"""TODO mesh/peers/report"""
