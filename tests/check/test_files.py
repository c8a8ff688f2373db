"""``check.run``: files, one result, and what the exit status of ``qmigtool check`` says."""

import json
import shutil

import pytest

import qmigtool
from qmigtool.check import CheckStatus
from qmigtool.cli.main import run as command
from qmigtool.findings import Severity
from tests.support import samplefiles

GOOD = samplefiles.path("pc-7.2")


@pytest.fixture
def files(tmp_path):
    """A folder: a good stream, a cut one, one that is not a stream."""
    shutil.copy(GOOD, tmp_path / "good.mig")
    (tmp_path / "cut.mig").write_bytes(GOOD.read_bytes()[:100_000])
    (tmp_path / "notes.txt").write_text("not a stream")
    return tmp_path


@pytest.fixture
def strict(tmp_path_factory):
    """A policy that finds something in the good stream."""
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text('[[field]]\npath = "cpu@0/env.xcr0"\nequals = "0x1"\nseverity = "error"\n')
    return policy


def test_one_file_that_is_fine(files):
    result = qmigtool.check.run(files / "good.mig")
    assert result.status is CheckStatus.FINE
    assert result.ok
    assert {finding.severity for finding in result.findings} == {Severity.NOTE}  # weighs too little
    assert [report.file for report in result.reports] == [str(files / "good.mig")]


def test_every_status_is_that_of_the_command(files, strict, capsys):
    cases = [
        ([files / "good.mig"], None, CheckStatus.FINE),
        ([files / "good.mig"], strict, CheckStatus.FOUND),
        ([files / "good.mig", files / "cut.mig"], None, CheckStatus.BROKEN),
        ([files / "good.mig", files / "nowhere.mig"], None, CheckStatus.NOT_OPENED),
        ([files / "notes.txt"], None, CheckStatus.BROKEN),
        ([files], None, CheckStatus.BROKEN),
    ]
    for paths, policy, status in cases:
        result = qmigtool.check.run(paths, policy)
        assert result.status is status, paths
        assert result.ok == (status == 0)
        more = [] if policy is None else ["--policy", str(policy)]
        assert command(["check", *map(str, paths), *more, "--json"]) == status
        assert json.loads(capsys.readouterr().out) == {"schema": 1, **result.as_dict()}


def test_a_folder_says_what_was_skipped(files):
    result = qmigtool.check.run(files)
    assert [report.file for report in result.reports] == [str(files / "cut.mig"), str(files / "good.mig")]
    assert result.skipped == ("notes.txt",)


def test_the_threshold_and_the_policy_object(files, strict):
    policy = qmigtool.check.load_policy(strict)
    assert qmigtool.check.run(str(files / "good.mig"), policy, fail_on="error").status is CheckStatus.FOUND
    strict.write_text(strict.read_text().replace('"error"', '"note"'))
    assert qmigtool.check.run(files / "good.mig", strict).status is CheckStatus.FINE
    assert qmigtool.check.run(files / "good.mig", strict, fail_on="note").status is CheckStatus.FOUND


def test_what_cannot_be_compared_with_the_baseline_is_a_finding(tmp_path):
    path = samplefiles.path("pc-7.2")
    with qmigtool.open(path) as stream:
        edits = qmigtool.Rewriter(stream)
        edits.to_accelerator("kvm")  # nothing in the output shows that
        edits.save(tmp_path / "kvm.mig")
    (report,) = qmigtool.check.run(tmp_path / "kvm.mig", baseline=path).reports
    words = [one.message for one in report.findings if one.rule == "baseline"]
    assert [one for one in words if one.startswith("cannot be compared with the baseline: cpu@0")], words


def test_a_baseline(files):
    result = qmigtool.check.run(files / "good.mig", baseline=samplefiles.path("q35-7.2"))
    assert result.status is CheckStatus.FOUND
    assert "baseline" in {finding.rule for finding in result.findings}
    assert qmigtool.check.run(files / "good.mig", baseline=GOOD).ok
    assert qmigtool.check.run(files / "good.mig", baseline=files / "cut.mig").status is CheckStatus.BROKEN
    with pytest.raises(qmigtool.UsageError, match="no baseline"):
        qmigtool.check.run([GOOD], baseline=files)


def test_wrong_options(files, tmp_path):
    with pytest.raises(qmigtool.UsageError, match="no file"):
        qmigtool.check.run([])
    with pytest.raises(qmigtool.UsageError, match="accelerator"):
        qmigtool.check.run(files / "good.mig", accelerator="nonsense")
    with pytest.raises(OSError, match=r"nowhere\.toml"):
        qmigtool.check.run(files / "good.mig", tmp_path / "nowhere.toml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(qmigtool.UsageError, match="no migration stream in the folder"):
        qmigtool.check.run(tmp_path / "empty")
