"""Learning the cluster: from Docker, from a manager's feed, or from a file.

source               What every source of the catalogue offers: it runs, and it says how it fares
docker_source        The catalogue from Docker: this node's engine, and the cluster from its API
engine_client        Docker's API through its own SDK, which blocks: calls on a few threads
engine_json          The local engine's JSON → this node's containers
node_watch           What the engine of this node tells: its containers and networks, first listed
manager_watch        The cluster as a manager tells it: polled
swarm_json           The manager API's JSON → the entities of the cluster
hostname_template    Docker's placeholders in a service's `--hostname`
allocations          What Swarm has given out beyond services and their tasks
merge                Which source wins where two disagree about a task
stopping_tasks       What is ending on this node, since when, and how sure that is
stopping_overlay     What the nodes say is ending, laid over what Swarm says
plain_containers     Plain containers (`docker run --network ATTACHABLE_OVERLAY`), told from node to node
return_path_overlay  What the nodes say of keeping the client's address
service_claims       The names and addresses that Swarm's services have
host_records         What managers tell each other of whose hosts are
saved_hosts          Whose hosts are, where the catalogue is a file: beside it on disk
view_cache           The last cluster view on disk
probe                Which ports of a local task are probed, read from its service's labels
prober               Probing this node's own tasks, from inside their namespaces
file_source          The catalogue from a YAML file: the embedded default, for laptops
"""
