"""Private set intersection and alignment, on Spark."""
