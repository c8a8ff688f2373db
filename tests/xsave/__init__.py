"""Tests of qmigtool.xsave. Expectations are literals, or come from the naive `model.py`; never from the code."""
