"""Published results are run again with their set-ups, for ``lightfabric bench published``."""
