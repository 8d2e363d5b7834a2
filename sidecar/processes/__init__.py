"""TODO sidecar/processes"""
