"""Sections of device state, and what describes them."""
