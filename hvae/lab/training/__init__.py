"""Training: R replicas at once, what is shown of them meanwhile, and how they are stopped."""
