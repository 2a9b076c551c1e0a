"""Queries of a user leave what a bundle looks among, and nobody finds others in their place."""

import numpy as np
import pytest

import recsys
from recsys.fit.__main__ import main as fit
from recsys.forget.__main__ import main
from recsys.trained.bundle.bundle import open_bundle
from recsys.trained.bundle.write import write_bundle


@pytest.mark.parametrize("vectors", ["words", pytest.param("encoder", marks=pytest.mark.slow)])
def test_training_queries_of_a_user_are_gone(shop_base, tmp_path, monkeypatch, vectors):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSYS_CACHE", str(tmp_path / "cache"))
    knn = ["architecture=query_knn", f"architecture.vectors={vectors}"]
    assert fit([*shop_base, *knn, "architecture.neighbours=5", "output=runs"]) == 0
    write_bundle(recsys.load("last"), tmp_path / "runs" / "bundle", users=True)

    def read():
        state = tmp_path / "runs" / "bundle" / "state"
        return {path.stem: np.load(path) for path in state.glob("*.npy")}

    def find(state, kind, at):
        starts = state[f"{kind}_starts"]
        return state[f"{kind}_columns"][starts[at] : starts[at + 1]].tolist()

    before = read()
    assert main(["user=u3", "in=runs", "yes=true"]) == 0
    after = read()
    left = np.flatnonzero(before["query_users"] != 3)
    assert 0 < len(left) < len(before["query_users"])
    owners = before["query_users"][left]
    assert (after["query_users"] == owners - (owners > 3)).all()
    for place, at in enumerate(left):
        assert find(after, "ended", place) == find(before, "ended", at)
        if vectors == "words":
            assert find(after, "rows", place) == find(before, "rows", at)
    if vectors == "encoder":
        assert (after["vectors"] == before["vectors"][left]).all()
    # It opens, checksums and all, and nobody finds the own queries.
    bundle = open_bundle(tmp_path / "runs" / "bundle")
    assert len(bundle.recommend(users=["u4", "u39"], k=5)) == 10
    with pytest.raises(recsys.errors.DataError, match="u3"):
        bundle.recommend(users=["u3"], k=5)
