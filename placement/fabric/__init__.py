"""Kinds of fabric as placement sees them, rates, orders and circuits: one file each, named as the kind."""
