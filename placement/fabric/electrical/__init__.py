"""Placement on fabrics of electrical switches has one file per kind here."""
