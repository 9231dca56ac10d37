"""The commands are here, the only folder that prints, plots, reads and writes files, or starts tools."""
