"""Packages that an input needs and that are not installed."""

from qmigtool.errors import UnsupportedError
from qmigtool.parsers.extras import lacking


def test_the_error_names_the_package_and_how_to_install_it():
    error = lacking("an lz4 frame", "lz4", "lz4")
    assert isinstance(error, UnsupportedError)
    assert "an lz4 frame" in str(error)
    assert "package lz4" in str(error)
    assert "pip install 'qmigtool[lz4]'" in str(error)
