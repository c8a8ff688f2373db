"""What tests of commands share: samples, documents, and the program in a process of its own."""

import json
import subprocess
import sys

from tests.support import samplefiles
from tests.support.ramwriter import named_page, plain

PC, KVM = (str(samplefiles.path(name)) for name in ("pc-7.2", "kvm-avx512-7.2"))
BROKEN = plain(named_page(0, 1), named_page(3, 2)).finish()[:-3000]


def document(result, code=0):
    assert result[0] == code, result
    found = json.loads(result[1])
    assert found.pop("schema") == 1
    return found


def program(*arguments, **options):
    """Run the real program in a process of its own."""
    options = {"capture_output": True, "check": False, "timeout": 60, **options}
    return subprocess.run([sys.executable, "-m", "qmigtool", *arguments], **options)
