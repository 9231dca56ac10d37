"""Specifications that come with lightfabric."""
