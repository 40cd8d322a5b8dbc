"""What tests share: parties, gateways, databases, clusters, fakes. Nothing here is a test, and no test is imported."""
