"""Rules in the kernel, computed from the snapshot and kept as they should be.

feature_probe   What this kernel can do for us: found out by doing it
capture         Capturing this node's containers: DNS sockets and our table in each one's namespace
ingress         Published ports in kernel mode: host → ingress namespace → task
ingress_state   What this node's published ports are to lead to in the kernel, as the catalogue says
rulesets        What the kernel is told, computed from the catalogue: whole tables as nftables text
loopback_rules  Keeping containers away from the host's 127.0.0.1 while `route_localnet` is on
return_paths    The way back to outside clients, kept in the namespaces of this node's tasks
return_rules    How a task answers an outside client through the node that the client chose
table           Our table in one namespace, held open: loading and changing it, its heartbeat, its end
heartbeat       Keeping a table's `alive` set alive: the fail-open switch of everything we redirect
counters        Counting what the kernel carries, by published port: the rules for it, and their reading
flow_drain      Flows to tasks that take no new work: which are ended, and when
devconf         Per-interface IPv4 settings (`forwarding`, `rp_filter`, `route_localnet`) over netlink
inspect         Reading back what the kernel holds of ours
cleanup         Taking everything of ours out of a node's kernel, and proving that it is gone
firewall        The host's own firewall: passing where it lets clients pass, and saying where it does not
netfilter       The kernel's messages for nftables and connection tracking
"""
