"""What describes device state where a stream does not."""
