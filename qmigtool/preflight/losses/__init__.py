"""What a target loses without a word.

===========  =====================================================================================
find         all of it: :func:`find_losses`; what the file lacks
cpu          what the target's CPU lacks
accelerator  what another accelerator takes otherwise, or does not take
===========  =====================================================================================
"""

from __future__ import annotations

from qmigtool.preflight.losses.find import Losses, find_losses, grouped

__all__ = ["Losses", "find_losses", "grouped"]
