"""Adapters for runtimes; each needs its extra, and none is imported by ``import fastsample``."""
