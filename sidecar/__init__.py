"""The process: configuration, wiring, life cycle, command line and admin API.

cli                 Commands that people type
lifecycle           The life of the process: start, say so, wait for a signal, stop within a limit
app                 The only wiring: every piece of the library is made, connected
wiring              Parts of the library connected for this process
workers             The sidecar's side of its other processes: how they are started, what they may do
processes           What runs in processes of its own
admin               The admin API: what the sidecar says of itself
config              How the process is configured: defaults, over them `mesh.yml`, then MESH_* variables
config_layers       The layers of the configuration: what each says, under which name
addresses           Where a surface listens, or is asked: an address and a port
encoded_characters  How the encoded characters that an entry point lets through are configured (meaning
status_model        What the process tells people about itself, as values: app makes them
version             The version, as it was installed
"""
