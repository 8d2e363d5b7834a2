"""A real Docker Swarm on one machine, for tests.

Each file is one idea; read them in this order:

    places      where things are: folders, names and addresses (pure)
    shell       run a command, keep its error readable
    packages    what apt must have installed
    trees       Debian trees made once with debootstrap, kept in the cache
    engine      one dockerd in namespaces of its own; node-init.sh is its process 1
    wire        the two networks, the client, partitions
    upstream    the lab's own DNS server, which knows a few names and denies all others
    wheels      what pip needs, downloaded once
    context     what `docker build` is sent, and its fingerprint
    forge       an engine that only builds images; nodes start with a copy of its image store
    node        one machine of the Swarm: engine + cables + disk
    swarm       init and join
    deploy      stacks, and waiting for the sidecars
    memory      what must be remembered between two commands, and the lock between them
    cleanup     leave nothing behind
    cli         the commands

Nothing here is imported by the product, and nothing here imports it.
"""
