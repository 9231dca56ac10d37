"""Placement on fabrics of optical circuits has one file per kind here."""
