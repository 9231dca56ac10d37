"""Networks of routers under synthetic traffic, on the cycle kernel."""
