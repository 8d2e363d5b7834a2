"""How we LEARN the cluster: Docker (`docker`), a manager's feed (`feed`), or a file (`file`); `merge` decides what wins."""
