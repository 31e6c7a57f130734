"""Adapters to runtimes. Each needs its extra, and ``import fastsample`` imports none of them."""
