"""A fit that is killed, with all steps before saved: what goes on from there must end
as if nothing had been."""

import itertools
import types
from contextlib import contextmanager

import pytest

import b2g.fit as engine


@contextmanager
def killed(monkeypatch, objective, at, where=lambda fit: True):
    """Fits of this class of ``objective``, in the block, die before step ``at``,
    of those fits that are ``where``.

    At every look at the clock more than a minute has passed: so each step is saved.
    """
    clock, whole = itertools.count(0, 61), objective.loss

    def loss(self, step):
        if step == at and where(self):
            raise KeyboardInterrupt
        return whole(self, step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
        patch.setattr(objective, "loss", loss)
        yield


@contextmanager
def killed_after(monkeypatch, step):
    """A ``watch`` under which a fit, in the block, dies after ``step``; each step is saved."""
    clock = itertools.count(0, 61)

    def stop(objective, done):
        if done == step:
            raise KeyboardInterrupt
        return {}

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
        yield stop
