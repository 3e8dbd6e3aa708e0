"""Procedural scenes: what is in them, what they look like, and questions about them."""
