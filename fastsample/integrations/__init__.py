"""Adapters for runtimes; each needs its extra, and none is imported by ``import fastsample``."""


def how_to_get(extra: str) -> str:
    """Return what installs an extra, from a checkout or from an index."""
    return f"pip install '.[{extra}]' in a checkout, or pip install 'fastsample[{extra}]'"
