"""Labels of services read into values, every fault named by its key. Pure.

values  Parsers of single label values, the one set for all packages
reader  Reads the labels of one service, and collects a problem for each that cannot be read
vips    How a service's virtual IPs choose a task: its `mesh.vip.*` labels read, with every fault named
ports   How each published port is carried: the service's labels read into a plan, with every fault named
dns     What a service's labels say about its names, with every fault named
"""
