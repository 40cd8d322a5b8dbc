"""Blind signatures and their keys: pure functions over batches, no network and no engine."""
