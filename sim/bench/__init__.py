"""Benches on Amaranth's simulator; they return what they saw."""
