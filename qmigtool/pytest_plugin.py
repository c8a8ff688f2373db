"""Where the pytest plugin was: an installation that was made before it moved names this module.

To be deleted once every development environment has been installed again (``pip install -e .``).
"""

from __future__ import annotations

import importlib
import sys

sys.modules[__name__] = importlib.import_module("qmigtool.testing.plugin")
