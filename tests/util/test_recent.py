from qmigtool.util.recent import Recent


def test_the_first_key_goes_when_one_too_many_is_set():
    kept: Recent[int, str] = Recent(2)
    for key in (1, 2, 2, 1, 3):
        kept[key] = str(key)
    assert kept == {2: "2", 3: "3"}
