"""A library of modules, channels and clocks: the cycle kernel, which knows nothing else of the model."""
