"""Programs of others and worker processes that the commands start."""
