"""Traffic between ranks, and orders of ranks on GPUs."""
