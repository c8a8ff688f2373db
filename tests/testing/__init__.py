"""What tests of others use."""
