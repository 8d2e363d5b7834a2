"""TODO sidecar/cli"""
