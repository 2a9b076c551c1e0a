"""Runs over the shop, whose items have a year, a price, a kind and a title."""

import pytest

from recsys.fit.__main__ import main as fit
from recsys.testing.shop import COLOURS, THINGS
from recsys.trained.run import load

WARM = ("red", "brown", "white")


def write_items(path):
    """30 items; the year and the price rise with the number of the item."""
    pairs = [(colour, thing) for colour in COLOURS for thing in THINGS]
    rows = [
        f"0{n:02d},{colour} {thing},{1960 + n},{n + 0.5},"
        f"{'warm' if colour in WARM else 'cool'}|{'seat' if thing == 'chair' else 'home'}"
        for n, (colour, thing) in enumerate(pairs)
    ]
    path.write_text("what,name,year,price,kind\n" + "\n".join(rows) + "\n")


@pytest.fixture(scope="session")
def fit_shop(shop_base, tmp_path_factory):
    """Fits a run over the items with columns; gives it."""
    folder = tmp_path_factory.mktemp("columns")
    write_items(folder / "items.csv")
    words = [word for word in shop_base if not word.startswith("data.source.items=")]
    words.append(f"data.source.items={folder / 'items.csv'}")

    def run(*more):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RECSYS_CACHE", str(folder / "cache"))
            output = tmp_path_factory.mktemp("runs")
            assert fit([*words, f"output={output}", *more]) == 0
            return load("last", output)

    return run


@pytest.fixture(scope="session")
def tower(fit_shop):
    """Two towers of the encoder as it is."""
    return fit_shop("architecture=two_tower", "tuning=frozen", "trainer.max_steps=0")


@pytest.fixture(scope="session")
def counting(fit_shop):
    """Item kNN, which reads no texts."""
    return fit_shop("experiment=item_knn")
