"""The colours of severities, the same in every command."""

from __future__ import annotations

from qmigtool.findings import Severity

__all__ = ["COLOURS"]

COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
