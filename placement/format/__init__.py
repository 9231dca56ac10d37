"""File formats of task graphs: Chakra, GOAL and TopoOpt."""
