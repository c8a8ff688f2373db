"""What a target loses silently.

===========  =====================================================================================
find         all losses: :func:`find_losses`; what the file lacks
cpu          what the target's CPU lacks
accelerator  what another accelerator interprets differently, or does not load
===========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.losses.find import Losses, find_losses, grouped

__all__ = ["Losses", "find_losses", "grouped"]
