"""What a run is: its identity moves with everything its outcome depends on, and with nothing else."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

import b2g
from b2g.errors import B2GError
from b2g.methods import METHODS
from b2g.runs import Record, specify

FAST = METHODS["b2g"].profile("fast")
CONSENSUS = METHODS["consensus"]
PICTURE = "skimage/astronaut@64"


def test_the_identity_is_the_hash_of_the_sorted_json():
    run = specify(PICTURE, FAST, level=25)
    spec = {
        "picture": PICTURE, "digest": b2g.datasets.info("skimage/astronaut").sha256[:16], "noise": "gaussian",
        "level": 25.0, "repeat": 0, "method": json.loads(FAST.identity()), "protocol": "unclipped", "watch": "",
    }  # fmt: skip
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    assert run.id == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_every_part_of_the_specification_moves_the_identity():
    base = specify(PICTURE, FAST)
    others = [
        specify("skimage/astronaut@65", FAST), specify("skimage/coffee@64", FAST), specify(PICTURE, FAST, level=26),
        specify(PICTURE, FAST, "poisson"), specify(PICTURE, FAST, repeat=1), specify(PICTURE, FAST, watch="psnr"),
        specify(PICTURE, FAST, protocol="clipped"), specify(PICTURE, FAST.changed(omega=0.7)),
        specify(PICTURE, METHODS["zs_n2n"]()), replace(base, digest="0" * 16),
    ]  # fmt: skip
    assert len({base.id, *(run.id for run in others)}) == 1 + len(others)


def test_equal_values_of_other_types_are_one_run():
    assert specify(PICTURE, FAST, level=25).id == specify(PICTURE, FAST, level=25.0).id
    assert specify(PICTURE, FAST.changed(head=list(FAST.head))).id == specify(PICTURE, FAST).id


def test_a_revision_moves_the_identity_and_an_old_one_is_refused(monkeypatch):
    run = specify(PICTURE, FAST)
    monkeypatch.setattr(METHODS["b2g"], "revision", FAST.revision + 1)
    assert specify(PICTURE, METHODS["b2g"].profile("fast")).id != run.id
    with pytest.raises(B2GError, match="revision"):
        run.configured()


def test_the_method_comes_back_as_it_was():
    method = FAST.changed(omega=0.3, head=(16, 8), mask="distance")
    assert specify(PICTURE, method).configured() == method


@pytest.mark.parametrize("method", [
    CONSENSUS(), CONSENSUS.profile("best", networks=2), CONSENSUS(noise="poisson"),
    CONSENSUS(sigma=25.0, patches="nl_ridge"), METHODS["b2g"](input="recorrupted", output="linear", patches="lichi"),
])  # fmt: skip
def test_a_method_of_members_comes_back_from_its_record(method):
    run = specify(PICTURE, method)
    record = Record.read(Record.of(run, psnr=30.0).row())
    assert record.id == run.id and record.run() == run
    assert record.run().configured() == method and json.loads(method.identity()) == record.settings


def test_a_consensus_of_members_that_have_changed_is_refused(monkeypatch):
    run, profiles = specify(PICTURE, CONSENSUS()), METHODS["b2g"].profiles
    monkeypatch.setitem(profiles, "paper", profiles["paper"] | dict(rate=0.123))
    assert run.configured() == CONSENSUS()  # no member of it
    monkeypatch.setitem(profiles, "fast", profiles["fast"] | dict(rate=0.123))
    assert specify(PICTURE, CONSENSUS()).id != run.id
    with pytest.raises(B2GError, match="needs consensus with members of other settings; install the b2g of then"):
        run.configured()


def test_a_members_revision_moves_the_identity_of_the_consensus(monkeypatch):
    run = specify(PICTURE, CONSENSUS())
    monkeypatch.setattr(METHODS["lichi"], "revision", METHODS["lichi"].revision + 1)
    assert specify(PICTURE, CONSENSUS()).id != run.id
    assert specify(PICTURE, CONSENSUS(patches="nl_ridge")).id == specify(PICTURE, CONSENSUS(patches="nl_ridge")).id
    with pytest.raises(B2GError, match="members of other settings"):
        run.configured()


def test_noise_is_that_of_the_named_seed():
    run = specify(PICTURE, FAST, level=50, repeat=3)
    clean = run.clean()
    expected = b2g.add_noise(clean, "gaussian", 50, seed=("skimage", "astronaut@64", "gaussian", 50, 3))
    assert np.array_equal(run.noisy(clean), expected)
    assert run.noisy(clean).min() < 0
    clipped = replace(run, protocol="clipped").noisy(clean)
    assert np.array_equal(clipped, expected.clip(0, 1))


@pytest.mark.parametrize(
    "arguments, word",
    [({"noise": "salt"}, "noise"), ({"level": 0}, "level"), ({"repeat": -1}, "repeat"), ({"protocol": "cut"}, "protocol"),
     ({"watch": "all"}, "watch"), ({"noise": "real"}, "real"), ({"protocol": "as given"}, "real")],
)  # fmt: skip
def test_what_cannot_be_is_refused(arguments, word):
    with pytest.raises(B2GError, match=word):
        specify(PICTURE, FAST, **arguments)


def test_the_digest_of_each_kind_of_picture():
    assert b2g.datasets.digest("hanzi/" + b2g.datasets.names("hanzi")[0].split("/")[1]) != b2g.datasets.digest(
        b2g.datasets.names("hanzi")[1]
    )
    pair = b2g.datasets.names("polyu")[0]
    sums = [b2g.datasets.info(pair, part).sha256 for part in ("clean", "noisy")]
    assert b2g.datasets.digest(pair) == hashlib.sha256("".join(sums).encode()).hexdigest()
    with pytest.raises(B2GError, match="not known"):
        b2g.datasets.digest("set9/F17")


@pytest.mark.parametrize("name", ["skimage/astronaut", "skimage/coffee@100", "skimage/coffee@90+3+4"])
def test_sizes_from_the_manifest_are_those_of_the_picture(name):
    assert b2g.datasets.size(name) == b2g.load(name).shape[:2]


def test_a_label_names_the_nearest_profile_and_what_differs():
    def label(method, level=25.0):
        return Record.of(specify(PICTURE, method, level=level)).label

    assert label(FAST) == "b2g/fast"
    assert label(METHODS["b2g"].profile("faithful", omega=0.4)) == "b2g/faithful+omega=0.4"
    assert label(METHODS["bm3d"](sigma=25.0)) == "bm3d+sigma=given"
    assert label(METHODS["bm3d"](sigma=20.0)) == "bm3d+sigma=20"
    assert label(METHODS["bm3d"]()) == "bm3d"
    assert label(METHODS["self2self"].profile("short")) == "self2self/short"
    assert label(CONSENSUS()) == "consensus/halves"
    assert [label(CONSENSUS.profile(name)) for name in ("fast", "best")] == ["consensus/fast", "consensus/best"]
    assert label(CONSENSUS(weight=0.4, sigma=25.0)) == "consensus/halves+weight=0.4+sigma=given"
