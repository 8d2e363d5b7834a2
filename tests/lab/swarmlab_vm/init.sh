#!/bin/sh
# Process 1 of the virtual machine, after the initrd has mounted the root: mounts, a network, the agent.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8

for each in "proc proc /proc" "sysfs sysfs /sys" "devtmpfs devtmpfs /dev" "tmpfs tmpfs /run" "tmpfs tmpfs /tmp" \
    "cgroup2 cgroup2 /sys/fs/cgroup"; do
    set -- $each
    mountpoint -q "$3" || mount -t "$1" "$2" "$3"
done
mkdir -p /dev/pts /dev/shm /run/lock
mountpoint -q /dev/pts || mount -t devpts devpts /dev/pts
mountpoint -q /dev/shm || mount -t tmpfs tmpfs /dev/shm
mount --make-rshared /
hostname vm
modprobe -a virtio_net overlay br_netfilter ip_vs ip_vs_rr xt_ipvs nf_conntrack_netlink
mount /dev/vdb /lab

# Docker's engines turn this on for the namespace they are in; new namespaces copy it from the first one, this one,
# and without it answers do not pass ingress_sbox.
echo 1 >/proc/sys/net/ipv4/ip_forward
ip link set lo up
cable=$(ls /sys/class/net | grep -v '^lo$' | head -n 1)
ip addr add 10.0.2.15/24 dev "$cable" # qemu's own network: it forwards the agent's port, and nothing goes out
ip link set "$cable" up
ulimit -n "$(ulimit -Hn)"
exec tini -- python3 /usr/local/lib/vm-agent.py /lab/token
