"""Figures of what the commands found are drawn here."""
