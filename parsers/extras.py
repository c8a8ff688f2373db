"""The error for a missing package that an extra of qmigtool installs."""

from __future__ import annotations

from qmigtool.errors import UnsupportedError

__all__ = ["lacking"]


def lacking(what: str, package: str, extra: str) -> UnsupportedError:
    """Return the error about ``what``, which needs ``package``: it names the command that installs it."""
    return UnsupportedError(
        f"{what} without the package {package}",
        f"{what} needs the package {package}",
        expected=f"it, by pip install 'qmigtool[{extra}]'",
    )
