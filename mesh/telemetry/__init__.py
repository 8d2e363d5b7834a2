"""Telling people: metrics, logs, explanations, diagnoses.

metrics          From counters to the exposition format: every metric of ours stands in this file
histogram        A histogram as plain counters: what the hot side adds to, and what a scrape reads
logs             Structured logging on the standard library: one line per event
redaction        Keeping secrets out of what people are shown: password hashes
explain          Which way a connection goes now: the words of an explanation
explain_port     From a published port of this node to the tasks and back: what is wanted, what is there
explain_service  A service as the containers of this node reach it
doctor           What a node and its cluster are to be like, judged from what was seen
doctor_cluster   What is seen of Docker, the other nodes and the sidecars, judged
doctor_limits    What the running sidecar may use, what it uses, and what that allows, judged
"""
