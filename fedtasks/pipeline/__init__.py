"""What a pipeline is made of: steps, the ready-made ones, and the configuration that both sides share."""
