"""The outcome of comparisons of many files."""

import pytest

from qmigtool.diff.outcome import folders_document


@pytest.mark.parametrize(
    ("answers", "only", "same"),
    [
        ([True, True], [], True), ([True, None], [], None), ([None, False], [], False), ([True], ["x"], False),
        ([], ["x"], False),
    ],
)  # fmt: skip
def test_folders_are_the_same_if_all_pairs_are(answers, only, same):
    files = [{"file": "a", "error": {}} if one is None else {"file": "a", "same": one} for one in answers]
    assert folders_document(files, only, [])["same"] is same
