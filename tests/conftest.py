"""Shared by all tests: one thread (the suite runs beside others), and a generator with a fixed seed."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(20250610)
