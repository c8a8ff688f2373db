"""A stream, opened."""
