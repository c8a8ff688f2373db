"""What is known of a target."""
