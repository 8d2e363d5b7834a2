"""TODO mesh/kernel/netfilter"""
