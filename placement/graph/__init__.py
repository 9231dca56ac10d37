"""Task graphs of training iterations."""
