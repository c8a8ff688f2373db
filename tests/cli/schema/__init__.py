"""The commands of `schema`."""
