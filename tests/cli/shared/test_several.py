"""Commands over several files: `info`, `xsave table`, `diff -r`."""

import csv
import json
import shutil

import pandas as pd
import pytest

import qmigtool
from qmigtool import tables
from qmigtool.cli.main import run
from tests.support import samplefiles

PC, Q35, ARM, KVM = (str(samplefiles.path(name)) for name in ("pc-7.2", "q35-7.2", "arm-7.2", "kvm-avx512-7.2"))


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.mig"
    path.write_bytes(b"nothing of the kind")
    return str(path)


def test_info_has_a_line_for_each(capsys):
    assert run(["info", PC, Q35, ARM]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "container", "machine", "saved", "by", "vCPUs", "devices", "RAM", "complete"]
    assert [line.split()[0] for line in lines] == [PC, Q35, ARM]
    assert lines[0].split()[1:] == ["raw", "pc-i440fx-7.2", "tcg", "4", "40", "16.5", "MiB", "yes"]


def test_info_as_json_has_what_each_has_alone(capsys):
    alone = []
    for one in (PC, ARM):
        assert run(["info", one, "--json"]) == 0
        alone.append(json.loads(capsys.readouterr().out))
    assert run(["info", PC, ARM, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("schema") == 1
    assert found == {
        "files": [
            {"file": name, **{key: value for key, value in document.items() if key != "schema"}}
            for name, document in zip((PC, ARM), alone, strict=True)
        ]
    }


@pytest.mark.parametrize("command", [["info"], ["xsave", "table"]])
def test_one_that_cannot_be_read_does_not_stop_the_others(command, bad, tmp_path, capsys):
    assert run([*command, PC, bad, str(tmp_path / "missing"), KVM]) == 2
    out, err = capsys.readouterr()
    assert PC in out
    assert KVM in out
    assert bad not in out
    assert f"qmigtool: {bad}: " in err
    assert run([*command, PC, bad, "--json"]) != 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert [one["file"] for one in files] == [PC, bad]
    assert "error" in files[1]


def test_statuses_are_ranked(capsys, bad):
    assert run(["xsave", "table", PC, ARM]) == 63
    alone = run(["xsave", "table", bad])
    assert run(["xsave", "table", ARM, bad]) == alone
    assert run(["info", PC, Q35, "--channel", KVM]) == 2
    assert run(["info", "-", "-"]) == 2


def test_xsave_table_has_a_column_with_the_file(capsys):
    assert run(["xsave", "table", PC, KVM]) == 0
    out = capsys.readouterr().out
    assert out.startswith("file ")
    assert [line.split()[0] for line in out.split("\n\n")[0].splitlines()[1:]] == [PC, PC, PC, KVM]
    assert f"{PC}: saved by tcg" in out
    assert run(["xsave", "table", PC, KVM, "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert {row["file"] for row in rows} == {PC, KVM}
    assert run(["xsave", "table", KVM, "--csv"]) == 0
    alone = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [{"file": KVM, **row} for row in alone] == [row for row in rows if row["file"] == KVM]


@pytest.mark.parametrize("table", [tables.xsave_components, tables.vcpus, tables.devices, tables.ram_blocks])
def test_frames_over_several_files(table):
    with qmigtool.open(PC) as one, qmigtool.open(KVM) as other:
        frame = table(one, other)
        assert list(frame.columns) == ["file", *(column.name for column in table.columns)]
        assert str(frame["file"].dtype) == "category"
        assert frame["file"].cat.categories.tolist() == sorted([PC, KVM])
        for name, stream in ((PC, one), (KVM, other)):
            alone = table(stream)
            mine = frame[frame["file"] == name].drop(columns="file").reset_index(drop=True)
            pd.testing.assert_frame_equal(pd.DataFrame(mine), pd.DataFrame(alone), check_categorical=False)
        assert len(list(table.rows(one, other))) == len(frame)


@pytest.fixture
def folders(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        (folder / "inside").mkdir(parents=True)
        shutil.copy(PC, folder / "same.mig")
        shutil.copy(KVM, folder / "inside" / "changed.mig")
        (folder / "notes.txt").write_text("not a stream")
    assert run(["rewrite", KVM, "--set", "cpu@0/env.mxcsr=0x1f80", "-o", str(b / "inside" / "changed.mig")]) == 0
    return a, b


def test_diff_of_folders(folders, capsys):
    a, b = folders
    capsys.readouterr()
    assert run(["diff", "-r", str(a), str(b)]) == 1
    out, err = capsys.readouterr()
    assert "same.mig: no difference" in out
    assert f"A  {a}/inside/changed.mig" in out
    assert "cpu@0/env.mxcsr" in out
    assert "skipped, not streams: notes.txt" in err
    assert run(["diff", "-r", str(a), str(b), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["only_a"], found["only_b"]) == (False, [], [])
    assert [(one["file"], one["same"]) for one in found["files"]] == [("inside/changed.mig", False), ("same.mig", True)]
    assert run(["diff", "-r", str(a), str(b), "--csv"]) == 1
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["file"], row["path"]) for row in rows] == [("inside/changed.mig", "env.mxcsr")]


def test_diff_of_folders_that_are_the_same(folders, capsys):
    a, _ = folders
    assert run(["diff", "-r", str(a), str(a)]) == 0
    assert run(["diff", "-r", str(a), str(a), "--ram"]) == 0


def test_a_stream_without_a_namesake_is_a_difference(folders, capsys):
    a, b = folders
    (a / "inside" / "changed.mig").unlink()
    assert run(["diff", "-r", str(a), str(b)]) == 1
    assert f"only in {b}: inside/changed.mig" in capsys.readouterr().out
    assert run(["diff", "-r", str(a), str(b), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["only_a"], found["only_b"]) == (False, [], ["inside/changed.mig"])


def test_folders_that_cannot_be_compared(folders, tmp_path, capsys):
    a, b = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    for wrong in (
        ["-r", str(empty), str(empty)], ["-r", PC, str(b)], ["-r", str(a), str(b), "--base", PC],
        ["-r", str(a), str(b), "--html", "x"],
    ):  # fmt: skip
        assert run(["diff", *wrong]) == 2
    (b / "same.mig").write_bytes((b / "same.mig").read_bytes()[:1000])
    assert run(["diff", "-r", str(a), str(b), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["same"] is False  # the other pair differs
    (b / "inside" / "changed.mig").write_bytes((a / "inside" / "changed.mig").read_bytes())
    assert run(["diff", "-r", str(a), str(b), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["same"] is None


@pytest.mark.parametrize("lost", [200, 200_000])
def test_a_broken_stream_is_neither_the_same_nor_different(lost, tmp_path, capsys):
    """Without the end of the vmdesc no section is lost, without 200000 bytes several are."""
    broken = tmp_path / "broken.mig"
    broken.write_bytes(samplefiles.read("pc-7.2")[:-lost])
    assert run(["diff", PC, str(broken), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["same"] is None
    assert run(["diff", PC, str(broken), "--base", PC, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["same"] is None


def test_a_file_that_cannot_be_opened_does_not_stop_the_others(folders, capsys):
    a, b = folders
    for folder in (a, b):
        (folder / "dangling.mig").symlink_to(folder / "nowhere")
    capsys.readouterr()
    assert run(["diff", "-r", str(a), str(b)]) == 2
    out, err = capsys.readouterr()
    assert "same.mig: no difference" in out
    assert f"qmigtool: {a}/dangling.mig: No such file or directory" in err
    assert run(["diff", "-r", str(a), str(b), "--json"]) == 2
    files = json.loads(capsys.readouterr().out)["files"]
    assert [one["file"] for one in files] == ["dangling.mig", "inside/changed.mig", "same.mig"]
    assert "No such file" in files[0]["error"]["message"]
    assert files[2]["same"] is True


def test_a_file_that_cannot_be_read_does_not_stop_the_others(folders, capsys, monkeypatch):
    """The superuser may read everything: the error is made."""
    from qmigtool.parsers.source import FileSource

    a, b = folders
    (b / "locked.mig").write_bytes((b / "same.mig").read_bytes())
    (a / "locked.mig").write_bytes((b / "same.mig").read_bytes())
    plain = FileSource.__init__

    def refusing(self, path, *more, **others):
        if str(path) == f"{b}/locked.mig":
            raise PermissionError(13, "Permission denied", str(path))
        plain(self, path, *more, **others)

    monkeypatch.setattr(FileSource, "__init__", refusing)
    capsys.readouterr()
    assert run(["diff", "-r", str(a), str(b), "--json"]) == 2
    files = {one["file"]: one for one in json.loads(capsys.readouterr().out)["files"]}
    assert "Permission denied" in files["locked.mig"]["error"]["message"]
    assert files["same.mig"]["same"] is True


def test_a_folder_that_cannot_be_listed_does_not_stop_the_others(folders, capsys, monkeypatch):
    """The superuser may list everything: the error is made."""
    from pathlib import Path

    a, b = folders
    plain = Path.iterdir

    def refusing(self):
        if self == b / "inside":
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self)

    monkeypatch.setattr(Path, "iterdir", refusing)
    capsys.readouterr()
    assert run(["diff", "-r", str(a), str(b)]) == 2
    out, err = capsys.readouterr()
    assert "same.mig: no difference" in out
    assert "only in" not in out + err  # what the folder contains is unknown
    assert f"qmigtool: {b}/inside/: Permission denied" in err
    assert run(["diff", "-r", str(a), str(b), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["same"], found["only_a"], found["only_b"]) == (None, [], [])
    files = {one["file"]: one for one in found["files"]}
    assert set(files) == {"inside/", "same.mig"}
    assert files["inside/"]["error"]["message"] == "Permission denied"
    assert files["same.mig"]["same"] is True
