"""The chiplet in Amaranth, one file per block."""
