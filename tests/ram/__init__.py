"""Guest memory."""
