"""Tests of qmigtool.parsers: expectations are literals, or what `tests.streamwriter` says it wrote."""
