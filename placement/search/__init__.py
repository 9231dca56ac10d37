"""The search for plans of parallelism and for pipeline stages."""
