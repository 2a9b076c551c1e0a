"""Vectors in few bits, against what numpy makes of the definition."""

import numpy as np
import pytest
import torch

from recsys.evaluation.quantization import (
    count_bytes,
    count_common_signs,
    quantize,
    restore,
    round_rows,
    score_pool,
)


@pytest.fixture
def vectors():
    made = torch.randn(50, 24, generator=torch.Generator().manual_seed(0))
    made[7] = 0.0
    return made


def test_eight_bits_are_what_numpy_rounds_them_to(vectors):
    codes, factors = quantize(vectors)
    x = vectors.numpy()
    largest = np.abs(x).max(1, keepdims=True)
    wanted = np.round(x / np.where(largest > 0, largest / 127, 1))
    assert codes.dtype == torch.int8
    assert np.array_equal(codes.numpy(), wanted.astype(np.int8))
    assert np.abs(restore(codes, factors).numpy() - x).max() <= largest.max() / 127 / 2 + 1e-6
    assert not restore(codes, factors)[7].any()


def test_a_row_is_rounded_by_itself(vectors):
    for precision in ("int8", "binary"):
        alone = round_rows(vectors[3:4], precision)
        assert torch.equal(alone, round_rows(vectors, precision)[3:4])


def test_signs_keep_the_length_of_a_vector(vectors):
    rounded = round_rows(vectors, "binary")
    assert torch.allclose(rounded.norm(dim=1), vectors.norm(dim=1), atol=1e-5)
    assert torch.equal(rounded[:7] > 0, vectors[:7] > 0)


def test_common_signs_are_the_width_less_the_hamming_distance(vectors):
    packed = np.packbits(vectors.numpy() > 0, axis=1)
    apart = np.unpackbits(packed[:9, None] ^ packed[None], axis=2).sum(2)
    assert np.array_equal(count_common_signs(vectors[:9], vectors).numpy(), 24 - apart)


def test_a_pool_is_ranked_by_its_scores_and_the_rest_by_signs(vectors):
    queries, items = vectors[:7], vectors[10:]
    common, scores = count_common_signs(queries, items).numpy(), (queries @ items.T).numpy()
    found = score_pool(queries, items, torch.from_numpy(scores), 5).numpy()
    for row in range(len(queries)):
        pool = sorted(range(len(items)), key=lambda at: (-common[row, at], at))[:5]
        rest = [at for at in range(len(items)) if at not in pool]
        wanted = sorted(pool, key=lambda at: -scores[row, at])
        ranked = np.argsort(-found[row], kind="stable")
        assert ranked[:5].tolist() == wanted
        assert np.allclose(found[row, pool], scores[row, pool])
        assert ranked[5:].tolist() == sorted(rest, key=lambda at: (-common[row, at], at))


def test_a_pool_of_all_changes_no_score(vectors):
    scores = vectors[:9] @ vectors.T
    assert torch.equal(score_pool(vectors[:9], vectors, scores, 50), scores)


def test_bytes_are_those_of_the_arrays(vectors):
    codes, factors = quantize(vectors)
    each = (codes.numpy().nbytes + factors.numpy().nbytes) / len(vectors)
    signs = np.packbits(vectors.numpy() > 0, axis=1).nbytes / len(vectors)
    assert count_bytes("fp32", 24) == vectors.numpy().nbytes / len(vectors)
    assert count_bytes("int8", 24) == each
    assert count_bytes("binary", 24) == signs + 4
    assert count_bytes("binary+int8", 24) == signs + each
