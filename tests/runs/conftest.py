"""Runs of these tests score without a network: what needs weights (LPIPS) stays empty
unless a mirror has them."""

import pytest


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("B2G_OFFLINE", "1")
