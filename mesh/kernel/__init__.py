"""CARRY in the kernel: nftables rules computed purely from the snapshot (`rules`), and what keeps them so."""
