"""Figures that the commands draw."""
