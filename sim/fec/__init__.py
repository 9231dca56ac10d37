"""Benches of the Reed-Solomon codec: codewords symbol by symbol under Amaranth, and error rates in C++."""
