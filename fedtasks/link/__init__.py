"""How a worker talks: to the other half of its task through a `Link`, to its own gateway through a `GatewayClient`."""
