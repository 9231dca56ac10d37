"""The cycle model repeats the RTL cycle by cycle: links, switches, GPUs and the chiplets joined from them."""
