"""Kinds of fabric as both models see them: one file each, named as the kind."""
