"""The commands are here, one file each, named as on the command line."""
