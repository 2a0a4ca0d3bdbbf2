import math
import types

import pytest
import torch
from torch import nn

import b2g.fit as engine
from b2g.errors import B2GError, Diverged
from b2g.fit import RunningAverage, Schedule, autocast, build, fit, mean_of_passes

CPU = torch.device("cpu")


class Weights(nn.Module):
    def __init__(self, count=3):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(count))


class Slope:
    """A loss of constant slope 1: each step of Adam then moves every weight by exactly the learning rate."""

    def __init__(self):
        self.network = Weights()
        self.steps = []

    def loss(self, step):
        self.steps.append(step)
        return self.network.weights.sum(), torch.full((1, 1, 16, 16), float(step))

    def state(self):
        return {}

    def load_state(self, state):
        pass


class Noisy(Slope):
    """A loss with chance of its own; ``fails`` is the step at which the machine goes down."""

    def __init__(self, fails=None):
        super().__init__()
        self.generator, self.fails = torch.Generator().manual_seed(4), fails

    def loss(self, step):
        if step == self.fails:
            raise KeyboardInterrupt
        target = torch.randn(3, generator=self.generator)
        loss = (self.network.weights - target).square().sum()
        return loss, self.network.weights.detach().sum() * torch.rand(1, 1, 16, 16, generator=self.generator)

    def state(self):
        return {"generator": self.generator.get_state()}

    def load_state(self, state):
        self.generator.set_state(state["generator"])


def test_initial_weights_come_from_the_seed_and_touch_no_generator_but_a_copy(monkeypatch):
    """torch.manual_seed would seed the callers' CUDA generators, too."""
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    state = torch.get_rng_state()
    one, same, other = (engine.build(lambda: nn.Linear(3, 4), seed, torch.device("cpu")).weight for seed in (5, 5, 6))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert seeded == [] and torch.equal(state, torch.get_rng_state())


@pytest.fixture
def hurried(monkeypatch):
    """A clock that lets a minute pass at every look, so that every step is saved."""
    clock = iter(range(0, 10**9, 61))
    monkeypatch.setattr(engine, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))


# ---- schedules ----


@pytest.mark.parametrize("decay, decay_from, closed_form", [
    ("constant", 0.5, lambda step: 1.0),
    ("halve", 0.75, lambda step: 1.0 if step < 30 else 0.5),
    ("cosine", 0.0, lambda step: (1 + math.cos(math.pi * step / 40)) / 2),
    ("cosine", 0.5, lambda step: 1.0 if step < 20 else (1 + math.cos(math.pi * (step - 20) / 20)) / 2),
])  # fmt: skip
def test_schedules_are_their_closed_forms_and_are_used(decay, decay_from, closed_form):
    schedule = Schedule(40, 0.01, decay, decay_from)
    factors = [schedule.factor(step) for step in range(40)]
    assert factors == pytest.approx([closed_form(step) for step in range(40)])
    objective = Slope()
    fit(objective, schedule)
    assert objective.steps == list(range(40))
    moved = objective.network.weights.detach()
    assert moved.tolist() == pytest.approx([-0.01 * sum(factors)] * 3, rel=1e-5)


def test_the_rate_may_be_halved_several_times():
    schedule = Schedule(100, 0.01, "halve", 0.2, halvings=4)
    assert [schedule.factor(step) for step in range(100)] == [0.5 ** (step // 20) for step in range(100)]
    assert Schedule(10, 0.01, "halve", 0.2, halvings=2).factor(9) == 0.25


@pytest.mark.parametrize("settings, sentence", [
    (dict(halvings=0), "halvings must be at least 1, not 0"),
    (dict(steps=0), "steps must be at least 1, not 0"),
    (dict(learning_rate=0.0), "learning_rate must be positive, not 0.0"),
    (dict(learning_rate=float("nan")), "learning_rate must be positive, not nan"),
    (dict(learning_rate=float("inf")), "learning_rate must be .* not inf"),
    (dict(decay="linear"), "decay must be one of constant, cosine, halve, not 'linear'"),
    (dict(decay_from=1.5), r"decay_from .* must lie in \[0, 1\], not 1.5"),
    (dict(decay_from=float("nan")), r"decay_from .* must lie in \[0, 1\], not nan"),
])  # fmt: skip
def test_an_impossible_schedule_is_refused(settings, sentence):
    with pytest.raises(B2GError, match=sentence):
        Schedule(**(dict(steps=10, learning_rate=0.1) | settings))


# ---- averages ----


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_the_running_average_is_the_weighted_mean(decay, generator):
    pictures = torch.rand(7, 1, 2, 3, 4, generator=generator)
    average, copies = RunningAverage(decay), pictures.clone()
    assert average.value is None
    for k in range(1, 8):
        average.add(pictures[k - 1])
        weights = torch.tensor([(1 - decay) * decay ** (k - i) for i in range(1, k + 1)], dtype=torch.float64)
        expected = (weights.view(-1, 1, 1, 1, 1) * pictures[:k].double()).sum(0) / (1 - decay**k)
        assert torch.allclose(average.value.double(), expected, rtol=1e-5)
    assert torch.equal(pictures, copies)


def test_an_average_that_was_handed_out_stays(generator):
    average = RunningAverage(0.0)
    average.add(torch.zeros(2, 2))
    first = average.value
    average.add(torch.ones(2, 2))
    assert first.max() == 0 and average.value.min() == 1


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_an_impossible_average_is_refused(decay):
    with pytest.raises(B2GError, match=r"decay must lie in \[0, 1\), not"):
        RunningAverage(decay)


def test_the_mean_of_passes(generator):
    answers = torch.rand(5, 1, 1, 2, 2, generator=generator)
    drawn = iter(answers)
    with torch.enable_grad():
        found = mean_of_passes(lambda: next(drawn) * torch.ones(1, requires_grad=True), 5)
    assert torch.allclose(found, answers.mean(0)) and not found.requires_grad
    assert torch.equal(next(iter(answers)), answers[0])


def test_no_passes_are_refused():
    with pytest.raises(B2GError, match="passes must be at least 1, not 0"):
        mean_of_passes(lambda: torch.zeros(1), 0)


# ---- the history ----


def test_the_history_tells_step_loss_and_psnr_of_the_average():
    objective, clean = Slope(), torch.full((1, 1, 16, 16), 0.5)
    objective.loss = lambda step: (
        objective.network.weights.sum(),
        torch.full((1, 1, 16, 16), 0.25 * (step % 2)),
    )
    result = fit(objective, Schedule(25, 0.1), average=0.0, clean=clean, log_every=10)
    assert [entry["step"] for entry in result.history] == [10, 20, 25]
    # The loss is that before the step, the picture that of the last step: 0.25, 0.25 and 0 against 0.5.
    assert [entry["loss"] for entry in result.history] == pytest.approx([-2.7, -5.7, -7.2], rel=1e-4)
    assert [entry["psnr"] for entry in result.history] == pytest.approx(
        [-20 * math.log10(error) for error in (0.25, 0.25, 0.5)]
    )
    seconds = [entry["seconds"] for entry in result.history]
    assert seconds == sorted(seconds) and result.seconds >= seconds[-1] > 0


def test_a_hundred_entries_unless_told_otherwise():
    assert len(fit(Slope(), Schedule(1000, 1e-3)).history) == 100
    assert len(fit(Slope(), Schedule(7, 1e-3)).history) == 7


def test_without_an_average_there_is_none():
    assert fit(Slope(), Schedule(3, 0.1)).average is None
    assert torch.equal(fit(Slope(), Schedule(3, 0.1), average=0.0).average, torch.full((1, 1, 16, 16), 2.0))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_is_one_sentence(value):
    objective = Slope()
    objective.loss = lambda step: (objective.network.weights.sum() * (value if step > 4 else 1), None)
    with pytest.raises(
        Diverged, match="^b2g diverged: its loss is (nan|-inf) at step 6; lower learning_rate"
    ) as raised:
        fit(objective, Schedule(50, 0.1), label="b2g", log_every=1)
    assert str(raised.value).count("\n") == 0


# ---- weights, precision ----


def test_initial_weights_follow_the_seed_alone():
    state = torch.get_rng_state()
    make = lambda: nn.Conv2d(3, 4, 3)  # noqa: E731
    first, again, other = (build(make, seed, CPU).weight.detach() for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("precision, dtype", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_precision_is_what_was_asked_for(precision, dtype):
    with autocast(CPU, precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    with autocast(CPU, "auto"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype in (torch.float32, torch.bfloat16)


def test_an_unknown_precision_is_refused():
    with pytest.raises(B2GError, match="precision must be 'auto', 'float32' or 'bfloat16', not 'float16'"):
        autocast(CPU, "float16")


# ---- checkpoints ----


def without_seconds(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


def run(objective, **more):
    clean = torch.full((1, 1, 16, 16), 0.5)
    return fit(objective, Schedule(30, 0.05, "cosine"), average=0.9, clean=clean, log_every=4, **more)


@pytest.mark.parametrize("fails", [1, 8, 29])
def test_a_killed_fit_goes_on_to_the_same_bits(fails, tmp_path, hurried):
    whole = Noisy()
    expected = run(whole)
    path = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(fails), checkpoint=path, identity="a")
    assert path.exists()
    resumed = Noisy()
    found = run(resumed, checkpoint=path, identity="a")
    assert torch.equal(resumed.network.weights, whole.network.weights)
    assert torch.equal(found.average, expected.average)
    assert without_seconds(found.history) == without_seconds(expected.history)
    assert list(tmp_path.iterdir()) == []  # done: nothing is left


def test_the_time_of_all_parts_is_counted(tmp_path, hurried):
    path = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(20), checkpoint=path, identity="a")
    before = torch.load(path, weights_only=True)["seconds"]
    found = run(Noisy(), checkpoint=path, identity="a")
    assert found.seconds > found.history[-1]["seconds"] > before > 0
    assert [e["seconds"] for e in found.history] == sorted(e["seconds"] for e in found.history)


def test_a_short_fit_writes_no_checkpoint(tmp_path):
    path = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(20), checkpoint=path, identity="a")
    assert list(tmp_path.iterdir()) == []  # less than a minute is begun again


def test_the_checkpoint_of_another_run_is_refused_and_kept(tmp_path, hurried):
    path = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(8), checkpoint=path, identity="a")
    content = path.read_bytes()
    with pytest.raises(B2GError, match="fit.ckpt belongs to another run"):
        run(Noisy(), checkpoint=path, identity="b")
    assert path.read_bytes() == content


@pytest.mark.parametrize("spoil", [
    lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"b2g", lambda whole: whole[:-1],
], ids=["half", "empty", "text", "a byte short"])  # fmt: skip
def test_a_spoilt_checkpoint_is_refused_and_kept(spoil, tmp_path, hurried):
    path = tmp_path / "fit.ckpt"
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(8), checkpoint=path, identity="a")
    spoilt = spoil(path.read_bytes())
    path.write_bytes(spoilt)
    objective = Noisy()
    with pytest.raises(B2GError, match="fit.ckpt is not a checkpoint of a fit"):
        run(objective, checkpoint=path, identity="a")
    assert path.read_bytes() == spoilt and objective.network.weights.abs().max() == 0


@pytest.mark.parametrize("other", [{"a": 1}, [1, 2]], ids=["a dict", "a list"])
def test_another_programs_file_is_refused(other, tmp_path):
    path = tmp_path / "model.pt"
    torch.save(other, path)
    with pytest.raises(B2GError, match="model.pt is not a checkpoint of a fit"):
        run(Noisy(), checkpoint=path, identity="a")


def test_a_checkpoint_never_runs_code(tmp_path):
    class Code:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    path = tmp_path / "fit.ckpt"
    torch.save({"identity": "a", "step": Code()}, path)
    with pytest.raises(B2GError, match="not a checkpoint"):
        run(Noisy(), checkpoint=path, identity="a")
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_is_written_whole_or_not_at_all(tmp_path, hurried, monkeypatch):
    path, save = tmp_path / "fit.ckpt", torch.save
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(8), checkpoint=path, identity="a")
    content = path.read_bytes()

    def half(content, file):
        file.write(b"half a checkpoint")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        run(Noisy(), checkpoint=path, identity="a")
    assert path.read_bytes() == content and list(tmp_path.iterdir()) == [path]
    monkeypatch.setattr(torch, "save", save)
    assert torch.equal(run(Noisy(), checkpoint=path, identity="a").average, run(Noisy()).average)


def test_a_folder_that_does_not_exist_is_refused_before_the_first_step(tmp_path):
    objective = Slope()
    with pytest.raises(B2GError, match="nowhere.*does not exist"):
        fit(objective, Schedule(3, 0.1), checkpoint=tmp_path / "nowhere" / "fit.ckpt")
    with pytest.raises(B2GError, match="is a folder"):
        fit(objective, Schedule(3, 0.1), checkpoint=tmp_path)
    assert objective.steps == []


# ---- watching ----


def test_a_watch_is_asked_at_every_entry_and_its_numbers_are_taken_up():
    objective, asked = Slope(), []

    def watch(given, step):
        assert given is objective and not torch.is_grad_enabled()
        asked.append(step)
        return {"weight": float(given.network.weights[0]), "loss": 99.0}

    result = fit(objective, Schedule(25, 0.1), log_every=10, watch=watch)
    assert asked == [entry["step"] for entry in result.history] == [10, 20, 25]
    assert [entry["weight"] for entry in result.history] == pytest.approx([-1.0, -2.0, -2.5], rel=1e-4)
    # What the fit itself says cannot be overwritten.
    assert [entry["loss"] for entry in result.history] == pytest.approx([-2.7, -5.7, -7.2], rel=1e-4)
    assert torch.is_grad_enabled()


def test_a_fit_that_is_told_to_stop_ends_there_with_an_entry_of_its_history():
    told = []

    def stop(done):
        told.append(done)
        return done == 7

    result = fit(Slope(), Schedule(20, 0.1), log_every=5, stop=stop)
    assert [entry["step"] for entry in result.history] == [5, 7] and told == [1, 2, 3, 4, 5, 6, 7]
    assert len(fit(Slope(), Schedule(20, 0.1), log_every=5).history) == 4
