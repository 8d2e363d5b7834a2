"""The version, as it was installed."""

from importlib.metadata import PackageNotFoundError, version


def mesh_version() -> str:
    try:
        return version("docker-swarm-mesh")
    except PackageNotFoundError:  # run from a checkout that was never installed
        return "0+unknown"
