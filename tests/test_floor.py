import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from b2g.capture import EagerSteps
from b2g.errors import B2GError
from b2g.fit import RunningAverage
from b2g.floor import Ceilings, Operation, Work, count, measure_ceilings, measure_step, seconds_of, touched
from b2g.method import Circumstances
from b2g.methods.b2g import B2G
from b2g.methods.bm3d import BM3D

CPU = torch.device("cpu")


def names(work):
    return [operation.name for operation in work.operations]


# ---- bytes ----


def test_operands_are_read_once_and_results_written_once():
    one, other = torch.ones(10, 20), torch.ones(20)
    assert count(lambda: one + other).bytes == 4 * (200 + 20 + 200)
    assert count(lambda: one * one).bytes == 4 * (200 + 200)
    assert count(lambda: one.sum()).bytes == 4 * (200 + 1)
    assert count(lambda: one.to(torch.bfloat16)).bytes == 4 * 200 + 2 * 200
    assert count(lambda: torch.cat((one, one[:5]))).bytes == 4 * (200 + 100 + 300)


def test_what_is_changed_in_place_is_read_and_written_unless_it_is_only_written():
    one, other = torch.ones(10, 20), torch.ones(20)
    assert count(lambda: one.add_(other)).bytes == 4 * (200 + 20 + 200)
    assert count(lambda: one.zero_()).bytes == 4 * 200
    assert count(lambda: one.copy_(other)).bytes == 4 * (20 + 200)
    assert count(lambda: torch.add(one, other, out=one)).bytes == 4 * (200 + 20 + 200)


def test_views_and_empty_places_move_nothing_and_repeats_are_read_once():
    one = torch.ones(10, 20)
    for view in (lambda: one.t(), lambda: one[2:], lambda: one.expand(5, 10, 20), lambda: torch.empty(9),
                 lambda: torch.empty_like(one), lambda: one.detach()):
        assert count(view).operations == ()
    assert touched(one.expand(5, 10, 20)) == 4 * 200 and touched(one[:, :3]) == 4 * 30 and touched(one[:0]) == 0
    assert count(lambda: one.expand(5, 10, 20) + 1).bytes == 4 * (200 + 1000)


def test_every_tensor_once():
    one = torch.ones(100)
    work = count(lambda: (one + 1) * one)
    assert work.bytes == 400 * (2 + 3) and work.once == 400 * 3
    # Whatever is freed in between leaves its place to the next: still another tensor.
    assert count(lambda: [one + 1 for _ in range(5)] and None).once == 400 * 6
    assert count(lambda: [float((one + 1)[0]) for _ in range(5)] and None).once == 400 * 6


def test_fused_work_is_products_and_lasting_changes():
    weight, state = torch.ones(8, 8), torch.zeros(8)

    def step():
        inner = torch.relu(weight @ weight).mul_(2)
        state.add_(inner[0])

    work = count(step)
    assert names(work) == ["mm", "relu", "mul_", "add_"]
    assert names(work.fused) == ["mm", "add_"]
    assert work.fused.bytes == 4 * (64 + 64) + 4 * (8 + 8 + 8)


# ---- operations ----


def test_a_convolutions_operations_are_the_closed_form_forward_and_back():
    weight = torch.ones(5, 3, 3, 3, requires_grad=True)
    picture = torch.ones(2, 3, 11, 13, requires_grad=True)
    once = 2 * 9 * 3 * 5 * 2 * 11 * 13  # a product and a sum for every tap, pair of channels and pixel
    assert count(lambda: F.conv2d(picture, weight, padding=1)).flops == once
    # Backward is two convolutions of the same size: by the picture and by the weights.
    assert count(lambda: F.conv2d(picture, weight, padding=1).sum().backward()).flops == 3 * once


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_whole_step_has_the_operations_that_pytorch_counts(precision):
    def steps():
        method = B2G.profile("smoke", visible="attached")
        loop = method.objective(torch.rand(1, 3, 32, 32), Circumstances(precision=precision))
        return EagerSteps(loop, torch.optim.Adam(loop.network.parameters(), fused=True), RunningAverage(0.9))

    take = steps()
    take(0, 1e-3)
    work = count(lambda: take(1, 1e-3))
    take = steps()
    with FlopCounterMode(display=False) as theirs:
        take(0, 1e-3)
    assert work.flops == theirs.get_total_flops() > 0
    convolutions = [operation for operation in work.operations if operation.name.startswith("convolution")]
    assert {operation.precision for operation in convolutions} == {precision}
    assert "_fused_adam_" in names(work) and "_fused_adam_" in names(work.fused)
    assert work.fused.flops == work.flops and work.fused.bytes < work.bytes and work.once < work.bytes


# ---- the floor ----


def test_the_floor_is_the_larger_of_two_times_summed():
    ceilings = Ceilings({"float32": 100.0, "bfloat16": 1000.0}, 10.0)
    operations = (
        Operation("a", 500, 20, "float32", True),  # 5 s of arithmetic, 2 s of traffic
        Operation("b", 500, 20, "bfloat16", True),  # 0.5 s, 2 s
        Operation("c", 0, 30, "float64", False),  # 3 s; no ceiling of its own
    )
    assert ceilings.floor(Work(operations, 0)) == pytest.approx(5 + 2 + 3)
    assert ceilings.floor(Work(operations, 0).fused) == pytest.approx(7)


def test_a_call_is_timed_by_itself():
    calls = []
    seconds = seconds_of(lambda: calls.append(sum(range(2000))), CPU, least=0.02)
    assert seconds > 0 and len(calls) > 5


def test_ceilings_of_this_machine_are_positive_and_finite():
    found = measure_ceilings(CPU, ("bfloat16",), side=64, elements=1 << 12, least=0.01)
    assert set(found.flops) == {"float32", "bfloat16"}
    assert all(0 < value < 1e18 for value in (*found.flops.values(), found.bandwidth))


def test_a_step_is_counted_and_timed():
    found = measure_step(B2G.profile("smoke"), 32, Circumstances(precision="float32"), channels=1, least=0.05)
    larger = measure_step(B2G.profile("smoke"), 128, Circumstances(precision="float32"), channels=1, least=0.05)
    assert found.engine == "eager" and found.seconds > 0
    # 32 pixels grow to 64 a side, so 128 are four times as many.
    assert larger.work.flops == pytest.approx(4 * found.work.flops, rel=1e-3)
    how = dict(circumstances=Circumstances(precision="float32"), channels=1, least=0.05)
    window = measure_step(B2G.profile("smoke", side=64), 128, **how)
    assert window.work.flops == found.work.flops  # of 64 pixels, whatever the picture
    with pytest.raises(B2GError, match="bm3d does not show its steps"):
        measure_step(BM3D(), 32)
