"""Keeping containers away from the host's 127.0.0.1 while `route_localnet` is on, as nftables text. Pure.

Without route_localnet on docker_gwbridge, 127.0.0.1:PORT has no way to the ingress namespace and back. With
it, a container could send packets to 127.0.0.1, or as 127.0.0.1, through the bridge. So the table is loaded
before the setting, and taken out after it. It drops ahead of conntrack: answers to the node's own
connections get their 127.0.0.1 back only there.
"""

LOOPBACK_TABLE = "mesh_loopback"
KEPT_CHAIN = "route_localnet_kept"
BEFORE_EVERYTHING = -450  # ahead of conntrack's defragmentation (-400), raw (-300) and conntrack (-200)
DELETE_LOOPBACK = f"add table ip {LOOPBACK_TABLE}\ndelete table ip {LOOPBACK_TABLE}\n"
LIST_LOOPBACK = f"list table ip {LOOPBACK_TABLE}\n"
LIST_KEPT = f"list chain ip {LOOPBACK_TABLE} {KEPT_CHAIN}\n"


def loopback_rules(kept: bool) -> str:
    """The whole table. `kept`: route_localnet was on before us; noted for whoever takes the table out."""
    note = f"  chain {KEPT_CHAIN} {{ }}\n" if kept else ""
    return (
        f"{DELETE_LOOPBACK}table ip {LOOPBACK_TABLE} {{\n"
        f"  chain arrive {{\n"
        f"    type filter hook prerouting priority {BEFORE_EVERYTHING}; policy accept;\n"
        f'    ip daddr 127.0.0.0/8 iifname != "lo" drop\n'
        f'    ip saddr 127.0.0.0/8 iifname != "lo" drop\n'
        f"  }}\n"
        f"{note}}}\n"
    )
