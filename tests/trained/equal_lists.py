"""Compares lists that were computed in two ways."""


def assert_equal_lists(lists, want, ties=False):
    """The same items at the same ranks with the same scores, but for what rounding leaves open.

    That is the order of scores that are equal but for their last digits, and which of them is the
    last of a list. With `ties`, scores are equal to the last digit or differ: nothing is open.
    """
    assert lists.columns == want.columns
    assert lists.select("query", "rank").equals(want.select("query", "rank"))
    if want.is_empty():
        return
    scale = 1 + want["score"].abs()
    assert ((lists["score"] - want["score"]).abs() / scale).max() <= 1e-6
    apart = want["score"].diff().abs() / scale > 3e-6
    first, last = want["rank"] == 1, (want["rank"] == 1).shift(-1, fill_value=True)
    clear = (apart | first) & apart.shift(-1, fill_value=False) & ~last
    if ties:
        clear = want["rank"] > 0
    assert clear.mean() >= 0.3
    names = [name for name in want.columns if name != "score"]
    assert lists.filter(clear).select(names).equals(want.filter(clear).select(names))
