"""TODO mesh/kernel/firewall"""
