"""A device's fields by path: what an error about a path says."""

import pytest

import qmigtool
from tests.support import samplefiles


@pytest.mark.parametrize("path", ["cpu/avx512", "avx512", "cpu/avx512/env.opmask_regs[0]"])
def test_a_subsection_that_was_not_sent_is_named(path):
    with qmigtool.open(samplefiles.path("pc-7.2")) as stream:
        cpu = stream.device("cpu@0")
        assert cpu.subsection("cpu/avx512") is None
        with pytest.raises(qmigtool.UsageError, match="no subsection cpu/avx512 in this stream: QEMU sends it only"):
            cpu.field(path)
        with pytest.raises(qmigtool.UsageError, match="has no field 'cpu/nothing'"):
            cpu.field("cpu/nothing")
        assert cpu.get(path) is None


def test_a_subsection_that_was_sent_is_not():
    with qmigtool.open(samplefiles.path("kvm-avx512-7.2")) as stream:
        cpu = stream.device("cpu@0")
        assert cpu.subsection("cpu/avx512") is not None
        with pytest.raises(qmigtool.UsageError, match="has no field 'nothing'"):
            cpu.field("cpu/avx512/nothing")
