"""Networks of routers carry synthetic traffic here, on the cycle kernel."""
