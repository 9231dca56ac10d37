"""The photonic plant is what electronics steer of a bus of rings: resonances, heaters, lasers, photodiodes, converters."""
