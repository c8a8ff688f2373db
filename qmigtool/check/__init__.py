"""Checking a stream: rules over anything decoded, and what they find.

=========  ===================================================================================
rule       what a rule is: its name, its reason, its options, the function that asks
rules/     the rules that there are, a module for each subject
fieldrule  rules that a policy makes of its own, over field values
patterns   names with ``*``, numbers as text
policy     which rules are asked, how much they weigh: TOML
engine     asking them
folder     which files of a folder are streams
=========  ===================================================================================

``default.toml`` is the policy without a file.
"""

from __future__ import annotations

from qmigtool.check.engine import report, run, unreadable
from qmigtool.check.folder import streams_below, streams_in
from qmigtool.check.policy import Policy, default_policy, default_text, load_policy
from qmigtool.check.rules import RULES

__all__ = [
    "RULES",
    "Policy",
    "default_policy",
    "default_text",
    "load_policy",
    "report",
    "run",
    "streams_below",
    "streams_in",
    "unreadable",
]
