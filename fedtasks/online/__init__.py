"""Live lookups: ids are matched as they come, under a ticket that bounds and counts them."""
