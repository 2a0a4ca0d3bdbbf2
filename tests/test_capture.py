import types

import pytest
import torch

import b2g
import b2g.fit as engine
from b2g.capture import WARM_UP, EagerSteps, GraphSteps, choose_steps, generators
from b2g.errors import B2GError
from b2g.fit import Schedule, fit
from b2g.method import Circumstances
from b2g.methods.b2g import B2G
from b2g.window import Canvas
from tape import Tape

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
# A rate that float32 holds exactly: the recorded Adam reads its rate from a float32 tensor.
HALVED = Schedule(12, 2.0**-8, "halve", 0.5)


RECORRUPTED = dict(input="recorrupted", patches="nl_ridge", draws=2, sigma=25.0, side=64, weights=0.9, output="linear")


def objective(device="cpu", precision="float32", size=32, seed=0, **settings):
    """A loop with masks and standout drawn at every step; flips are chosen by the host on a CPU,
    so they are off."""
    method = B2G.profile("smoke", **(dict(flips=False) | settings))
    noisy = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)).to(device)
    return method.objective(noisy, Circumstances(precision=precision, seed=seed))


@pytest.fixture
def taped(monkeypatch):
    """Let `fit` record its steps on a tape; gives the list of the tapes used."""
    tapes = []

    def start(breaks=False, strict=False):
        def choose(engine, objective, optimiser, mean):
            tapes.append(Tape(optimiser, breaks))
            return GraphSteps(objective, optimiser, mean, strict=strict, cuda=tapes[-1])

        monkeypatch.setattr(engine, "choose_steps", choose)
        return tapes

    return start


def told(history):
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in history]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))


def run(loop, schedule=HALVED, **more):
    clean = torch.full((1, 3, 32, 32), 0.5)
    return fit(loop, schedule, average=0.9, clean=clean, log_every=5, **more)


# ---- a recorded step is the same step ----


@pytest.mark.parametrize("settings", [
    {}, dict(visible="detached"), dict(visible="attached"), dict(mask="uniform", dropout="all", standout="none"),
], ids=["masked", "detached", "attached", "uniform"])  # fmt: skip
def test_replayed_steps_are_the_eager_ones_bit_for_bit(settings, taped):
    plain, recorded = objective(**settings), objective(**settings)
    expected = run(plain)
    tapes = taped()
    found = run(recorded)
    assert (expected.engine, found.engine) == ("eager", "graph")
    assert [graph.replays for graph in tapes[0].graphs] == [HALVED.steps - WARM_UP]
    assert same(plain, recorded) and torch.equal(expected.average, found.average)
    assert told(expected.history) == told(found.history)
    assert torch.equal(plain.generator.get_state(), recorded.generator.get_state())
    assert torch.equal(plain.predict(), recorded.predict())


@pytest.mark.parametrize("settings", [dict(side=64), RECORRUPTED], ids=["windows", "recorrupted"])
def test_windows_and_recorruptions_are_replayed_bit_for_bit(settings, taped):
    """Positions, noise, the average of each pixel and that of the weights are all drawn
    or kept on the device."""
    plain, recorded = objective(size=72, **settings), objective(size=72, **settings)
    expected = fit(plain, HALVED, average=Canvas(plain.noisy, 0.9))
    tapes = taped()
    found = fit(recorded, HALVED, average=Canvas(recorded.noisy, 0.9))
    assert found.engine == "graph" and tapes[0].graphs[0].replays == HALVED.steps - WARM_UP
    assert same(plain, recorded) and torch.equal(expected.average, found.average)
    assert told(expected.history) == told(found.history) and torch.equal(plain.see(), recorded.see())
    if settings == RECORRUPTED:
        with plain.settled(), recorded.settled():
            assert torch.equal(plain.see(), recorded.see())


def test_a_rate_that_changes_at_every_step_is_followed(taped):
    class Rounded(EagerSteps):
        def __call__(self, step, rate):
            return super().__call__(step, float(torch.tensor(rate, dtype=torch.float32)))

    schedule = Schedule(12, 0.01, "cosine")
    plain, recorded = objective(), objective()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "choose_steps", lambda engine, *rest: Rounded(*rest))
        expected = run(plain, schedule)
    taped()
    found = run(recorded, schedule)
    assert found.engine == "graph" and same(plain, recorded) and torch.equal(expected.average, found.average)


def test_a_fit_no_longer_than_the_warm_up_records_nothing(taped):
    tapes, loop, plain = taped(), objective(), objective()
    run(loop, Schedule(WARM_UP, 0.01))
    assert tapes[0].graphs == []
    tapes.clear()
    run(plain, Schedule(WARM_UP + 1, 0.01))
    assert [graph.replays for graph in tapes[0].graphs] == [1]


def test_a_killed_fit_that_was_recorded_goes_on_to_the_same_bits(taped, tmp_path, monkeypatch):
    clock = iter(range(0, 10**9, 61))
    whole, path = objective(), tmp_path / "fit.ckpt"
    tapes = taped()
    expected = run(whole)

    def killed(loop, step):
        if step == 5:
            raise KeyboardInterrupt
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(engine, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
        with pytest.raises(KeyboardInterrupt):
            run(objective(), checkpoint=path, identity="a", watch=killed)
    assert torch.load(path, weights_only=True)["step"] == 4
    resumed = objective()
    found = run(resumed, checkpoint=path, identity="a")
    assert found.engine == "graph" and tapes[-1].graphs[0].replays == 12 - 4 - WARM_UP
    assert same(whole, resumed) and torch.equal(expected.average, found.average)
    assert told(expected.history) == told(found.history)


@pytest.mark.parametrize("first, then", [("graph", "eager"), ("eager", "graph")])
def test_a_checkpoint_serves_the_other_engine(first, then, taped, tmp_path, monkeypatch):
    clock, path = iter(range(0, 10**9, 61)), tmp_path / "fit.ckpt"
    whole, resumed, plain = objective(), objective(), engine.choose_steps
    run(whole)

    def use(name):
        taped() if name == "graph" else monkeypatch.setattr(engine, "choose_steps", plain)

    def killed(loop, step):
        if step == 5:
            raise KeyboardInterrupt
        return {}

    use(first)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "time", types.SimpleNamespace(perf_counter=lambda: float(next(clock))))
        with pytest.raises(KeyboardInterrupt):
            run(objective(), checkpoint=path, identity="a", watch=killed)
    use(then)
    assert run(resumed, checkpoint=path, identity="a").engine == then and same(whole, resumed)


def test_watching_leaves_no_trace_in_a_recorded_fit(taped):
    taped()
    plain, watched = objective(), objective()
    run(plain)
    looks = []

    def watch(loop, step):
        looks.append(loop.look(torch.Generator().manual_seed(step)))
        return {}

    run(watched, watch=watch)
    assert same(plain, watched) and len(looks) == 3


# ---- where no graph can be made ----


class Waiting:
    """An objective that says it can be recorded, and reads a number back at every step."""

    capturable = True

    def __init__(self, fails=None):
        self.network = torch.nn.Linear(3, 1, bias=False)
        torch.nn.init.ones_(self.network.weight)
        self.generator, self.fails = torch.Generator().manual_seed(4), fails

    def loss(self, step):
        loss = (self.network.weight * torch.rand(1, 3, generator=self.generator)).sum().square()
        answer = torch.rand(1, 1, 16, 16, generator=self.generator)
        return loss * (1 if loss.detach().item() > 0 else 2), answer

    def state(self):
        return {"generator": self.generator.get_state()}

    def load_state(self, state):
        self.generator.set_state(state["generator"])


def test_a_step_that_waits_for_the_gpu_is_taken_again_eagerly(taped):
    plain, recorded = Waiting(), Waiting()
    expected = fit(plain, HALVED, average=0.9)
    tapes = taped()
    found = fit(recorded, HALVED, average=0.9)
    assert found.engine.startswith("eager, since no graph could be made: called a synchronizing")
    assert tapes[0].graphs == [] and tapes[0].mode == 0
    assert same(plain, recorded) and torch.equal(expected.average, found.average)
    assert told(expected.history) == told(found.history)


def test_a_recording_that_breaks_off_is_forgotten(taped):
    plain, recorded = objective(), objective()
    expected = run(plain)
    tapes = taped(breaks=True)
    found = run(recorded)
    assert not any(group["capturable"] for group in tapes[0].optimiser.param_groups)  # else Adam warns
    assert found.engine == "eager, since no graph could be made: out of memory while recording"
    assert same(plain, recorded) and torch.equal(expected.average, found.average)
    assert told(expected.history) == told(found.history)


def test_the_bar_says_why_there_is_no_graph(taped, monkeypatch):
    bars, made = [], engine.tqdm
    shown = lambda **settings: bars.append(made(**settings | dict(disable=False))) or bars[-1]  # noqa: E731
    monkeypatch.setattr(engine, "tqdm", shown)
    taped(breaks=True)
    run(objective(), label="b2g")
    assert bars[0].desc == "b2g (eager, since no graph could be made: out of memory while recording)"
    taped()
    run(objective(), label="b2g")
    assert bars[1].desc == "b2g: " or bars[1].desc == "b2g"


def test_whoever_insists_on_a_graph_is_told(taped):
    taped(breaks=True, strict=True)
    with pytest.raises(B2GError, match=r"engine='graph' failed \(out of memory while recording\); use engine='auto'."):
        run(objective())
    taped(strict=True)
    assert run(objective()).engine == "graph"


def test_the_stand_in_refuses_what_a_graph_would(taped):
    """Else the tests above could pass for the wrong reason."""
    taped()
    loop = objective()
    loop.generators = []
    assert "not registered" in run(loop).engine
    loop = objective()
    loop.loss = lambda step, loss=loop.loss: (loss(step)[0] * step, None)  # a number of the host's, frozen
    plain = objective()
    plain.loss = lambda step, loss=plain.loss: (loss(step)[0] * step, None)
    run(loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "choose_steps", lambda engine, *rest: EagerSteps(*rest))
        run(plain)
    assert not same(loop, plain)


# ---- the choice ----


def choose(name, loop):
    return choose_steps(name, loop, torch.optim.Adam(loop.network.parameters(), fused=True), None)


def test_on_a_cpu_steps_are_eager():
    assert type(choose("auto", objective())) is EagerSteps and choose("auto", objective()).engine == "eager"
    with pytest.raises(B2GError, match="engine='graph' needs a CUDA device and this fit is on cpu"):
        choose("graph", objective())
    with pytest.raises(B2GError, match="engine must be one of auto, eager, graph, not 'compiled'"):
        choose("compiled", objective())


@pytest.mark.parametrize("method", ["b2g", "zs_n2n", "self2self"])
def test_the_engine_is_no_part_of_a_run(method):
    noisy = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(1))
    how = dict(steps=3, progress=False, device="cpu")
    auto, eager = (b2g.denoise(noisy, method, "smoke", engine=name, **how) for name in ("auto", "eager"))
    assert torch.equal(auto.image, eager.image) and auto.identity == eager.identity
    for given in (noisy, [noisy, noisy]):
        with pytest.raises(B2GError, match="engine='graph' needs a CUDA device and this fit is on cpu; use"):
            b2g.denoise(given, method, "smoke", device="cpu", engine="graph")


def test_generators_are_those_that_the_objective_names():
    loop, bare = objective(), types.SimpleNamespace()
    assert generators(loop) == [loop.generator] and generators(bare) == []
    two = [torch.Generator(), torch.Generator()]
    assert generators(types.SimpleNamespace(generators=iter(two), generator=None)) == two


def on_meta(loop):
    """The loop's network on a device that is no CPU; what is chosen there does not depend on which."""
    weights = torch.nn.Parameter(torch.zeros(1))
    device = types.SimpleNamespace(type="cuda")
    parameter = types.SimpleNamespace(device=device, data=weights)
    network = types.SimpleNamespace(parameters=lambda: iter([parameter]))
    return types.SimpleNamespace(network=network, capturable=loop)


def test_on_a_gpu_unlike_steps_are_eager_with_the_reason():
    assert choose_steps("auto", on_meta(False), None, None).engine == "eager, since the steps are not all alike"
    assert choose_steps("eager", on_meta(True), None, None).engine == "eager"
    with pytest.raises(B2GError, match="engine='graph' needs steps that are all alike"):
        choose_steps("graph", on_meta(False), None, None)


# ---- on a GPU ----


@CUDA
@pytest.mark.parametrize("settings", [
    {}, dict(flips=True), dict(visible="detached"), dict(visible="attached"), dict(mask="uniform"), RECORRUPTED,
], ids=["masked", "flips", "detached", "attached", "uniform", "recorrupted"])  # fmt: skip
def test_a_cuda_graph_is_the_eager_fit(settings):
    """The same draws; sums may be taken in another order,
    which moves a fit far less than another seed does."""
    fits = {}
    for engine, seed in (("eager", 0), ("graph", 0), ("eager", 1)):
        loop = objective("cuda", seed=seed, **settings)
        mean = Canvas(loop.noisy, 0.5) if settings == RECORRUPTED else 0.5
        result = fit(loop, Schedule(12, 2.0**-10), average=mean, engine=engine)
        fits[engine, seed] = result, loop.generator.get_state()
    (eager, drawn), (graph, drawn_too), (other, _) = fits.values()
    assert graph.engine == "graph" and torch.equal(drawn, drawn_too)
    off, apart = ((one.average - eager.average).square().mean().sqrt() for one in (graph, other))
    assert off < 0.1 * apart
    assert graph.history[0]["loss"] == pytest.approx(eager.history[0]["loss"], rel=1e-4)


@CUDA
def test_each_replay_draws_new_masks():
    loop = objective("cuda")
    seen, law = [], loop.law

    def watch(given, step):
        seen.append(given.last.clone())
        return {}

    result = fit(loop, Schedule(12, 2.0**-20), engine="graph", log_every=1, watch=watch)
    assert law.kind == "bernoulli" and len({entry["loss"] for entry in result.history}) == 12
    assert not torch.equal(seen[-1], seen[-2])


@CUDA
def test_a_cuda_recording_that_breaks_off_is_forgotten():
    """A value read back is refused before the recording, and the fit that goes on is the eager one."""
    results = []
    for name in ("eager", "auto"):
        waiting = Waiting()
        waiting.network.to("cuda")
        waiting.generator = torch.Generator("cuda").manual_seed(4)
        draw = lambda *shape, one=waiting: torch.rand(*shape, generator=one.generator, device="cuda")  # noqa: E731

        def loss(step, one=waiting, draw=draw):
            value = (one.network.weight * draw(1, 3)).sum().square()
            return value * (1 if value.detach().item() > 0 else 2), None

        waiting.loss = loss
        results.append((fit(waiting, HALVED, engine=name), waiting))
    assert "no graph could be made" in results[1][0].engine
    assert torch.allclose(results[0][1].network.weight, results[1][1].network.weight, rtol=1e-5)


@CUDA
def test_a_cuda_fit_in_bfloat16_ends_near_the_one_in_float32():
    answers = [
        fit(objective("cuda", precision), Schedule(60, 4e-3), average=0.9, engine="graph").average
        for precision in ("float32", "bfloat16")
    ]
    assert (answers[0] - answers[1]).square().mean().sqrt() < 0.02
