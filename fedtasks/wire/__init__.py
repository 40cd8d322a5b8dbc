"""The messages of the protocol: generated stubs, nothing else."""
