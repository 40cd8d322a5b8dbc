"""Federated models. Importing this package, or `evaluation`, loads no TensorFlow."""
