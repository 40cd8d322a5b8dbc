"""A whole party on one machine: what the demo and the tests start, watch and end."""
