"""The documents of the library are what the commands print."""

import json

import pytest

import qmigtool
from qmigtool import check, diff, preflight, tables
from qmigtool.cli.main import run
from qmigtool.diff.outcome import Outcome
from qmigtool.documents.presence import presence_document
from qmigtool.documents.ram import ram_document
from qmigtool.documents.sections import sections_document
from qmigtool.documents.show import show_document
from qmigtool.preflight.document import preflight_document
from qmigtool.rewrite.document import rewrite_document
from qmigtool.stream.info import problems_document
from tests.support import samplefiles

FILE = str(samplefiles.path("kvm-avx512-7.2"))
OTHER = str(samplefiles.path("pc-7.2"))


def printed(capsys, *arguments):
    assert run([*arguments, "--json"]) in (0, 1, 63)
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def stream():
    with qmigtool.open(FILE, keep_runs=True) as stream:
        stream.prove()
        yield stream


def test_facts(stream, capsys):
    rows = list(tables.xsave_components.rows(stream))
    documents = {
        ("sections",): sections_document(stream),
        ("show",): show_document(stream).as_dict(),
        ("xsave", "table"): presence_document(stream, stream.vcpus, rows),
        ("ram",): ram_document(stream),
    }
    for command, document in documents.items():
        assert printed(capsys, *command, FILE) == {"schema": 1, **document}


def test_one_field(stream, capsys):
    device = stream["cpu@0"]
    document = show_document(stream, device, "env.xcr0").as_dict()
    assert printed(capsys, "show", FILE, "cpu@0/env.xcr0") == {"schema": 1, **document}
    assert document["devices"][0]["fields"] == {"env.xcr0": hex(device.field("env.xcr0").value)}
    with pytest.raises(qmigtool.UsageError):
        show_document(stream, device, "nothing")


def test_judgements(stream, capsys):
    with qmigtool.open(OTHER) as other:
        other.prove()
        outcome = Outcome(qmigtool.compare(stream, other), None, (stream, other), moved=False)
        assert printed(capsys, "diff", FILE, OTHER) == {"schema": 1, **outcome.as_dict()}
    target = preflight.read_targets(["7.2"])
    document = preflight_document(preflight.preflight(stream, target), target) | problems_document(stream)
    assert printed(capsys, "preflight", FILE, "--target", "7.2") == {"schema": 1, **document}
    assert printed(capsys, "check", FILE) == {"schema": 1, **check.run(FILE).as_dict()}
    assert printed(capsys, "check", "--list-rules") == {"schema": 1, **check.default_policy().as_dict()}
    base = [qmigtool.open(OTHER) for _ in range(3)]
    three = diff.outcome.three_way_document(diff.compare_three(*base), base)
    assert printed(capsys, "diff", OTHER, OTHER, "--base", OTHER) == {"schema": 1, **three}


def test_a_rewrite(stream, capsys):
    rewriter = qmigtool.Rewriter(stream)
    rewriter.set("cpu@0/env.mxcsr", 0x1FA0)
    document = rewrite_document(rewriter, rewriter.splices(), None)
    assert printed(capsys, "rewrite", FILE, "--dry-run", "--set", "cpu@0/env.mxcsr=0x1fa0") == {"schema": 1, **document}
