"""The cycle kernel runs modules, channels and clocks; it is a library that knows nothing else of the model."""
