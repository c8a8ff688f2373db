"""Guest memory compared."""
