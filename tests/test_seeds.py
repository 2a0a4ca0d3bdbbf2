import hashlib

import numpy as np
import pytest
import torch

from b2g.errors import B2GError
from b2g.seeds import numpy_random, seed_for, torch_generator


def test_seed_is_the_head_of_the_sha256_of_the_json():
    digest = hashlib.sha256(b'["set9","F16","gaussian",25,0]').hexdigest()
    assert seed_for("set9", "F16", "gaussian", 25, 0) == int(digest[:16], 16) // 2


def test_equal_numbers_name_equal_seeds_and_unequal_names_do_not():
    assert len({seed_for("a", level) for level in (25, 25.0, np.float32(25), np.int64(25))}) == 1
    names = [("a", 1), ("a", 2), ("a", "1"), ("a1",), ("a", 1, None), (("a", 1),), ("a", 0.5), ("b", 1)]
    assert len({seed_for(*name) for name in names}) == len(names)
    assert seed_for("café") == seed_for("caf\u00e9")


def test_seeds_use_all_63_bits():
    seeds = [seed_for("bits", n) for n in range(400)]
    for bit in range(63):  # a fair bit is 1 in 200 +- 10 of 400; six standard deviations
        assert 140 < sum(seed >> bit & 1 for seed in seeds) < 260
    assert max(seeds) < 2**63


@pytest.mark.parametrize("name", [float("nan"), float("inf"), object(), {"a": 1}])
def test_unnamable(name):
    with pytest.raises(B2GError, match="seed cannot be named"):
        seed_for("set9", name)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, "0", True, None])
@pytest.mark.parametrize("make", [numpy_random, torch_generator])
def test_bad_seed(make, seed):
    with pytest.raises(B2GError, match="whole number"):
        make(seed)


def test_numpy_stream_is_the_frozen_one():
    assert np.array_equal(numpy_random(7).standard_normal(5), np.random.RandomState(7).standard_normal(5))
    # The first draw of seed 0 has been this one since NumPy's first release.
    assert numpy_random(0).standard_normal() == pytest.approx(1.764052345967664, abs=1e-15)


def test_high_and_low_bits_of_a_numpy_seed_both_matter():
    seeds = [5, 5 + 2**32, 5 + 2**62, 6 + 2**32]
    draws = [numpy_random(seed).standard_normal(8) for seed in seeds]
    assert all(np.array_equal(numpy_random(s).standard_normal(8), kept) for s, kept in zip(seeds, draws))
    assert len({kept.tobytes() for kept in draws}) == len(seeds)


def test_torch_seeds_are_kept_and_told_apart():
    draws = [torch.randn(8, generator=torch_generator(seed)).numpy().tobytes() for seed in (5, 6, 5)]
    assert draws[0] == draws[2] != draws[1]
    assert torch_generator(2**62 + 1).initial_seed() == 2**62 + 1


def test_generators_leave_the_global_state_alone():
    before, state = np.random.get_state()[1].copy(), torch.get_rng_state()
    numpy_random(1).standard_normal(3), torch.randn(3, generator=torch_generator(1))
    assert np.array_equal(before, np.random.get_state()[1]) and torch.equal(state, torch.get_rng_state())
