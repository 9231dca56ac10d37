"""The model describes systems and predicts their time: specs, task graphs, bit-exact references, simulators."""
