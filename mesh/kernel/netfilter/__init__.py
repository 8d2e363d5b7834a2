"""The kernel's messages for nftables and connection tracking.

interfaces    An open nftables table and who opens it, as their users need them: the real ones or a test's
transaction   A change of a loaded table as a list of operations
nft_batch     Changing a loaded table by nfnetlink batches: one message to the kernel, one answer back
nfnetlink     A transaction as the kernel reads it: one nfnetlink batch (linux/netfilter/nf_tables.h)
nft           Loading rulesets with libnftables, one transaction per call.
nft_process   The process that runs libnftables for a sidecar
nft_messages  The messages between `nft` and `nft_process`, over a pair of stream sockets. Blocking
libnftables   libnftables in this process, one transaction per call
conntrack     conntrack of the calling thread's namespace: finding flows and ending them. Blocking
ctnetlink     conntrack's messages: what is asked, and a flow as the kernel tells it
"""
