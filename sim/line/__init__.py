"""The benches of the line side drive test patterns and measure a line by them."""
