"""Programs of others, and worker processes, are started here."""
