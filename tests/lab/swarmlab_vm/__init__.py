"""The lab inside a virtual machine: the same Swarm on a kernel that has IPVS, whatever the host's kernel is.

Nothing of the lab is written twice: the machine is a small Debian in which `tests/lab/lab` itself runs. Each
file is one idea; read them in this order:

    places      the two folders, and the limits of the machine
    disks       the system's disk (kept) and the lab's disk (made for each `up`)
    init.sh     process 1 of the machine: mounts, a network, the agent
    agent       inside: runs commands for who knows the token
    channel     outside: a command's input, output and exit code through the agent
    machine     qemu: power on, power off
    cli         the commands

It emulates every instruction (TCG): it needs no KVM, and is many times slower than the machine it is on.
"""
