"""Electrical fabrics reach every GPU over switches, with rates and delays of their own."""
