"""Judging one stream by a policy: rules over anything that can be decoded."""
