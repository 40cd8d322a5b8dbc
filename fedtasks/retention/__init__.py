"""What runs have left and nobody needs any more: what goes by policy, and what stays because it is in use."""
