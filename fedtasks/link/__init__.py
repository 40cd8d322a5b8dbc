"""How a worker talks: to the other half of its task through a `Link`, to its own gateway through a `GatewayClient`."""

import os

# Starting Spark forks. What gRPC would do in the child before another program takes its place can kill it there.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
