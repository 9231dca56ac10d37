"""Tables of training runs are read: what ran, on which system, by which software."""
