"""TODO sidecar/admin"""
