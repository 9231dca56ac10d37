"""The cost model: time and memory of a training step, for all plans at once."""
