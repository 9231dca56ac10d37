"""The chiplet is described in Amaranth here, one file per block."""
