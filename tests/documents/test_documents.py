"""The documents of the library are what the commands print."""

import json
from dataclasses import replace

import pytest

import qmigtool
from qmigtool import check, diff, preflight, tables
from qmigtool.cli.main import run
from qmigtool.devices.schema.model import load_file
from qmigtool.diff.outcome import Outcome
from qmigtool.documents.presence import presence_document
from qmigtool.documents.ram import ram_document
from qmigtool.documents.sections import sections_document
from qmigtool.documents.show import show_document
from qmigtool.findings import Finding, Severity
from qmigtool.rewrite.document import rewrite_document
from qmigtool.rewrite.undo import make_patch, undo
from qmigtool.schemadiff import Direction, compare_schemas, read_shapes
from qmigtool.stream.info import info_document, lacking_memory
from qmigtool.xsave.areacheck import check_found
from qmigtool.xsave.document import layout_document
from qmigtool.xsave.holders import find_area
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, eos, mem_size, zero

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
    document = preflight.preflight_document(preflight.preflight(stream, target), target, stream)
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


def test_a_preflight_of_a_file(tmp_path, capsys):
    """The status is the command's, also for a file that is not a stream."""
    target = preflight.read_targets(["7.2"])
    broken = tmp_path / "broken.mig"
    broken.write_bytes(b"no stream")
    for file in (FILE, OTHER, str(broken)):
        result = preflight.preflight_file(file, target)
        assert run(["preflight", file, "--target", "7.2", "--json"]) == result.status
        document = json.loads(capsys.readouterr().out)
        assert (document["loads"], document["errors"]) == (result.loads, list(result.verdict.errors))
        if result.error is not None:
            assert document == {"schema": 1, **preflight.preflight_document(result, target)}
    assert result.status is preflight.PreflightStatus.BROKEN
    assert result.verdict.errors
    with pytest.raises(qmigtool.StreamError):
        preflight.outcome.preflight_broken(tmp_path, target, qmigtool.StreamError("a folder"))


def test_preflight_statuses():
    target = preflight.read_targets(["7.2"])
    found = preflight.preflight_file(FILE, target)
    loads, refuses, open_ = (replace(found.verdict, loads=loads) for loads in (True, False, None))
    doubt = Finding("unknown", Severity.NOTE, "something")
    loss = Finding("lost", Severity.WARNING, "a register")
    note = Finding("lost", Severity.NOTE, "a register")
    for verdict, losses, doubts, status in (
        (loads, (), (), 0),
        (loads, (note,), (), 0),
        (loads, (loss,), (), 1),
        (loads, (loss,), (doubt,), 1),
        (loads, (), (doubt,), 63),
        (refuses, (), (doubt,), 1),
        (open_, (loss,), (), 63),
    ):
        assert preflight.Preflight(verdict, losses, None, (), doubts).status == status


def test_layouts_and_areas(stream, tmp_path, capsys):
    layouts = [layout_document(qmigtool.layout(name)) for name in qmigtool.xsave.layout_names()]
    assert printed(capsys, "xsave", "layouts") == {"schema": 1, "layouts": layouts}
    path = tmp_path / "area"
    path.write_bytes(stream.vcpus[0].xsave.data)
    holder = find_area(path.read_bytes(), path.name)
    for options, consumers in (((), ()), (("--consumer", "mshv"), ("mshv",))):
        found = check_found(holder, qmigtool.layout("qemu"), consumers=consumers)
        assert printed(capsys, "xsave", "check", str(path), "--layout", "qemu", *options) == {
            "schema": 1,
            **found.as_dict(),
        }
        assert found.status == int(not found.accepted)
        assert run(["xsave", "check", str(path), "--layout", "qemu", *options]) == found.status
        capsys.readouterr()
    assert found.status == 1  # MSHV takes no standard area


def test_schemas(capsys, tmp_path):
    sides = [read_shapes(name, name) for name in (FILE, OTHER)]
    compared = compare_schemas(*sides)
    assert printed(capsys, "schema", "diff", FILE, OTHER) == {"schema": 1, **compared.as_dict(*sides)}
    for direction in Direction:
        for strict in (False, True):
            options = ["--strict"] if strict else []
            status = run(["schema", "diff", FILE, OTHER, "--direction", direction.value, *options])
            assert status == compared.status(direction, strict=strict)
    capsys.readouterr()
    out = tmp_path / "learned.json.xz"
    document = printed(capsys, "schema", "learn", OTHER, "-o", str(out))
    learned = load_file(str(out))
    assert document == {"schema": 1, **learned.summary(), "skipped": []}
    assert learned.to_file(out.name) == out.read_bytes()


def test_an_undo(stream, tmp_path, capsys):
    rewriter = qmigtool.Rewriter(stream)
    rewriter.set("cpu@0/env.mxcsr", 0x1FA0)
    new, patch, old = (tmp_path / name for name in ("new", "patch", "old"))
    patch.write_bytes(make_patch(stream, rewriter.splices()))
    rewriter.save(new)
    document = printed(capsys, "undo", str(new), str(patch), "-o", str(old))
    with qmigtool.open(new) as changed, (tmp_path / "again").open("w+b") as target:
        done = undo(changed, patch.read_bytes(), target)
        assert document == {"schema": 1, **done.as_dict(changed)}
    assert (tmp_path / "again").read_bytes() == old.read_bytes() == samplefiles.path("kvm-avx512-7.2").read_bytes()


def test_missing_memory_has_the_status_of_info(tmp_path, capsys):
    main = tmp_path / "main.mig"
    main.write_bytes(lacking_pages())
    with qmigtool.open(main) as stream:
        lacking = lacking_memory(stream)
        assert lacking is not None
        assert lacking.status == 1
        assert info_document(stream, lacking)["complete"] is False
    assert run(["info", str(main)]) == 1
    capsys.readouterr()
    assert lacking._replace(excuse="the guest may have freed them").status == 0


def lacking_pages():
    writer = StreamWriter()
    writer.start(1, "ram", 0, 4, mem_size([("pc.ram", 4 * PAGE)]) + eos())
    writer.end(1, zero(0, "pc.ram") + eos())
    return writer.finish()
