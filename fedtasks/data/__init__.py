"""Datasets, shards, blocks and manifests; every path goes through fsspec."""
