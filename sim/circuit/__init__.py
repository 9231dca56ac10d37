"""Benches of what moves light: circuits of an optical switch, and wavelengths of a ring, are changed under traffic here."""
