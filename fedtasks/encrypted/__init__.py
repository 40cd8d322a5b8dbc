"""Arithmetic on what one party cannot read: bins, histograms over them, and their sums under Paillier."""
