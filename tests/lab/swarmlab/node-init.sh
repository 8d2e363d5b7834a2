#!/bin/sh
# Becomes process 1 of an engine: makes the machine's file system, waits for its cables, runs dockerd.
# Started by unshare in new mount, net, uts, ipc and pid namespaces. Told by the environment:
#   NAME     host name            FOLDER   disk of the machine: docker/ (its /var/lib/docker), upper/, work/, root/
#   TREE     Debian tree to run from, or empty: the host's own file system
#   BINDS    folders of the host to show inside under the same name
#   FRONT, BACK, GATEWAY          addresses with prefix length; empty when the machine has no network
# The arguments are dockerd's.
set -eu

read -r pid _ </proc/self/stat # our number as the host sees it: this /proc is still the host's
echo "$pid"
read -r go # the lab has plugged the cables in
[ "$go" = go ]
exec </dev/null >>"$FOLDER/log" 2>&1

mount --make-rprivate /
root=$FOLDER/root
layer() { mount -t overlay -o "lowerdir=$1,upperdir=$FOLDER/upper/$2,workdir=$FOLDER/work/$2" overlay "$root/$2"; }
if [ -n "$TREE" ]; then
    layer "$TREE" .
else
    mount --bind / "$root"
    layer /etc etc # the engine and this script write there; the host must not see it
    layer /opt opt # containerd makes /opt/containerd
fi
for folder in $BINDS; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
mkdir -p "$root/var/lib/docker"
mount --bind "$FOLDER/docker" "$root/var/lib/docker"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys" # a fresh one shows this namespace's devices…
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup" # …but lacks the cgroups
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mkdir "$root/run/lock"
cd "$root"
pivot_root . . # the old root now lies on top of the new one: take it off
umount -l .
cd /
mount --make-rshared / # a bind with propagation rslave must have something to follow

echo "$NAME" >/proc/sys/kernel/hostname
ip link set lo up
if [ -n "$FRONT" ]; then
    ip addr add "$FRONT" dev ens32
    ip addr add "$BACK" dev ens33
    ip link set ens32 up
    ip link set ens33 up
    ip route add default via "$GATEWAY"
fi
ulimit -n "$(ulimit -Hn)"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root MESH_LAB_PROCESS="$MESH_LAB_PROCESS" \
    docker-init -- dockerd "$@"
