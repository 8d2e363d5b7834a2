"""Processes beside the sidecar: how they are started, what they may do, and how both sides talk.

frames      the boundaries of messages in a stream of bytes, and which descriptors belong to which (pure)
messages    a message as bytes: one of a fixed set of dataclasses, checked field by field (pure)
channel     one end of a pair of sockets: messages and descriptors, in order
supervisor  starts the processes, tells them what is true, replaces the ones that end
"""
