"""Streaming join: two live logs become aligned blocks, each row exactly once on both sides."""
