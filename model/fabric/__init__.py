"""Kinds of fabric as the models see them: links, routes and cabling."""
