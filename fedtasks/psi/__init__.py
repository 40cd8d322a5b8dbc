"""Private set intersection and alignment, on an engine."""
