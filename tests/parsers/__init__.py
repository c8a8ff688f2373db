"""Tests of qmigtool.parsers: expectations are literals, or what `tests.support.streamwriter` says it wrote."""
