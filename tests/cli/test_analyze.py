"""`analyze`: exit codes."""

from tests.cli.calling import BROKEN
from tests.support import samplefiles


def test_exit_codes_of_analyze(call, tmp_path):
    assert call("analyze", samplefiles.path("arm-7.2"))[0] == 0
    assert call("analyze", samplefiles.path("novmdesc-7.2"), "-d", "desc")[0] == 63
    assert call("analyze", samplefiles.path("pc-7.2"), "-d", "nothing")[0] == 2
    broken = tmp_path / "broken"
    broken.write_bytes(BROKEN)
    assert call("analyze", broken)[0] == 3
