"""TODO sidecar/wiring"""
