"""Check a stream: rules over decoded state, and their findings.

=========  ===================================================================================
rule       the type of a rule: its name, reason, options and check function
rules/     the built-in rules, a module for each subject
fieldrule  rules over field values that a policy defines
patterns   names with ``*``, numbers as text
policy     the rules that run, and their severities: TOML
engine     running them over a stream
files      running them over files, and the exit status
folder     which files of a folder are streams
=========  ===================================================================================

The default policy consists of what the rules declare: ``check --print-policy`` prints it.
"""

from __future__ import annotations

from qmigtool.check.engine import findings_of, report, unreadable
from qmigtool.check.files import CheckResult, CheckStatus, run
from qmigtool.check.folder import streams_below, streams_in
from qmigtool.check.policy import Policy, default_policy, default_text, load_policy
from qmigtool.check.rules import RULES

__all__ = [
    "RULES",
    "CheckResult",
    "CheckStatus",
    "Policy",
    "default_policy",
    "default_text",
    "findings_of",
    "load_policy",
    "report",
    "run",
    "streams_below",
    "streams_in",
    "unreadable",
]
