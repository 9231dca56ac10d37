"""The channel between two ends of a link does to blocks what fibre, light and SerDes do, by chance and by seed."""
