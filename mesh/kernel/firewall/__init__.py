"""The host's own firewall: passing where it lets clients pass, and saying where it does not.

forward_chain   Letting redirected traffic pass Docker's FORWARD policy (DROP)
filter_table    The filter table of iptables as text, and the changes that put our rules where they belong
iptables        The host's iptables: which programs hold its rules; reading and changing a filter table
listeners       Having the operator's DOCKER-USER asked for everything that the sidecar listens on for
listener_rules  Which packets for the node's listeners DOCKER-USER is to be asked about, as nftables text
watch           Noticing that somebody has changed the host's firewall: at once
review          Looking through the host's whole firewall for what would keep clients out of published
rule_walk       Which rules of a host's firewall keep a client out of a published port
nft_listing     Rules that iptables does not show (firewalld's, the operator's own tables)
"""
