import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from b2g import load, measures, psnr
from b2g.errors import B2GError
from b2g.method import canonical_json
from b2g.methods import METHODS
from b2g.report import gallery
from b2g.report import records as stored
from b2g.runs.record import Record
from b2g.runs.spec import specify

PICTURES = ("skimage/astronaut@64", "skimage/coffee@64")
BM3D, FAST, OURS = "bm3d+sigma=given", "b2g/fast", "b2g/faithful"


def configured(label, level):
    method, _, profile = label.partition("/")
    return METHODS["bm3d"](sigma=level) if method.startswith("bm3d") else METHODS[method].profile(profile)


def record(picture, label, level=50.0, **outcome):
    run = specify(picture, configured(label, level), level=level)
    return Record.of(run, **({"kept": "0,0,64,64", "psnr": 25.0, "seconds": 8.0, "cpu_seconds": 8.0,
                              "device": "cpu"} | outcome))


@pytest.fixture
def stock(tmp_path, monkeypatch):
    """Records with stand-in answers in a gallery of their own: the noise times 0.1 or 0.3 stays."""
    monkeypatch.setattr(stored, "_stored", lambda *parts: existing(tmp_path / parts[-1]))
    rows = [record(picture, label) for picture in PICTURES for label in (BM3D, FAST, OURS)]
    for row in rows:
        clean = load(row.picture)
        noise = row.run().noisy(clean) - clean
        stays = 0.1 if row.label == BM3D else 0.3
        save(tmp_path / f"{row.id}.png", clean + stays * noise)
        save(tmp_path / f"{stored.clean_name(row)}.png", clean)
    return rows


def existing(path):
    if not path.is_file():
        raise B2GError(f"There is no {path}.")
    return path


def save(path, picture):
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * picture.clip(0, 1)).astype(np.uint8)).save(stream, "PNG")
    path.write_bytes(stream.getvalue())


def test_answered_takes_what_all_have_and_what_is_asked_for(stock):
    other = record(PICTURES[0], FAST, 25.0)
    failed = dataclasses.replace(record(PICTURES[0], OURS, 25.0), state="diverged")
    found = gallery.answered([*stock, other, failed], (FAST, OURS), noise="gaussian")
    assert [key[0] for key in found] == list(PICTURES)
    assert all(list(cell) == [FAST, OURS] for cell in found.values())
    assert all(cell[m].label == m and cell[m].key == key for key, cell in found.items() for m in cell)
    assert gallery.answered(stock, (OURS,), noise="poisson") == {}
    assert list(gallery.answered([*stock, other], (FAST,), level=25.0)) == [other.key]


def test_a_watched_run_stands_in_only_where_the_plain_one_is_missing(stock):
    watched = dataclasses.replace(stock[1], watch="psnr", psnr=1.0)
    assert gallery.answered([watched, *stock], (FAST,))[stock[1].key][FAST] is stock[1]
    assert gallery.answered([watched], (FAST,))[stock[1].key][FAST] is watched


def test_scenes_bring_the_pictures(stock):
    found = gallery.scenes(stock, (BM3D, OURS), crop=64)
    assert [scene.picture for scene in found] == list(PICTURES)
    for scene in found:
        clean = load(scene.picture)
        assert np.abs(scene.clean - clean).max() <= 0.5 / 255
        drawn = next(iter(scene.records.values())).run().noisy(clean)
        assert np.abs(scene.noisy - drawn).max() < 1e-6 and scene.noisy.max() > 1.05
        assert psnr(clean, scene.answers[BM3D]) > psnr(clean, scene.answers[OURS]) + 5
        assert list(scene.shown()) == ["noisy", "BM3D, σ given", "B2G faithful", "clean"]
    assert found[0].title.replace("\u00a0", " ") == "astronaut, σ = 50"


def test_scenes_leave_out_what_is_not_in_the_gallery(stock, tmp_path):
    (tmp_path / f"{stock[0].id}.png").unlink()
    assert [scene.picture for scene in gallery.scenes(stock, (BM3D, OURS))] == [PICTURES[1]]
    assert len(gallery.scenes(stock, (FAST, OURS))) == 2
    unkept = [dataclasses.replace(row, kept="") for row in stock]
    assert gallery.scenes(unkept, (FAST, OURS)) == []


def test_measured_is_what_the_measures_say(stock):
    scene = gallery.scenes(stock, (BM3D, OURS))[0]
    for label, found in scene.measured.items():
        answer = scene.answers[label]
        assert list(found) == list(gallery.MEASURES)
        assert found["edges"] == pytest.approx(255 * measures.edge_error(scene.clean, answer).edges ** 0.5)
        assert found["grain"] == measures.grain(scene.clean, answer)
    # The stand-ins keep a tenth and three tenths of the noise, less what clipping takes.
    assert scene.measured[BM3D]["noise"] == pytest.approx(0.1, abs=0.01)
    assert scene.measured[OURS]["outliers"] == pytest.approx(0.3, abs=0.03)


def test_the_worst_part_is_where_most_is_lost(stock):
    scene = gallery.scenes(stock, (FAST, OURS))[0]
    scene.answers[OURS] = scene.answers[FAST].copy()
    scene.answers[OURS][16:32, 48:64] = 1 - scene.clean[16:32, 48:64].round()
    left, top, lost = gallery.worst_part(scene, OURS, FAST, 16)
    assert (left, top) == (48, 16)
    cut = np.s_[16:32, 48:64]
    ours, theirs = (((scene.answers[m] - scene.clean)[cut] ** 2).mean() for m in (OURS, FAST))
    assert lost == pytest.approx(ours - theirs) and lost > 0.05
    assert gallery.worst_part(scene, FAST, OURS, 64)[2] < 0
    elsewhere = np.ones((64, 64), bool)
    elsewhere[cut] = False
    assert gallery.worst_part(scene, OURS, FAST, 16, elsewhere)[2] == 0
    assert np.array_equal(gallery.part(scene.clean, 48, 16, 16), scene.clean[cut])
    with pytest.raises(B2GError, match="does not fit"):
        gallery.worst_part(scene, FAST, OURS, 65)


def test_excess_sums_to_the_difference_of_the_errors(stock):
    scene = gallery.scenes(stock, (BM3D, OURS))[0]
    found = gallery.excess(scene, OURS, BM3D)
    worse, better = (((scene.answers[m] - scene.clean) ** 2).mean() for m in (OURS, BM3D))
    assert found["all"] == pytest.approx(worse - better) and found["all"] > 0
    assert sum(found[key] for key in ("edges", "beside", "texture", "flat", "other")) == pytest.approx(found["all"])
    assert found["gray"] + found["colour"] == pytest.approx(found["all"])
    assert sum(area.astype(int) for area in gallery.areas(scene.clean).values()).tolist() == [[1] * 64] * 64
    flat = measures.regions(scene.clean).flat
    by_hand = sum(((scene.answers[OURS] - scene.clean) ** 2 - (scene.answers[BM3D] - scene.clean) ** 2)[i, j].mean()
                  for i, j in zip(*np.nonzero(flat)))
    assert found["flat"] == pytest.approx(by_hand / flat.size)
    scene.answers.update({BM3D: scene.clean, OURS: scene.clean + 0.05})  # gray alone
    assert gallery.excess(scene, OURS, BM3D)["colour"] == pytest.approx(0, abs=1e-12)
    assert gallery.excess(scene, OURS, BM3D)["gray"] == pytest.approx(0.05**2)


def test_labels_of_profiles(stock):
    assert gallery.label_of("b2g", "faithful", steps=400) == "b2g/faithful+steps=400"
    assert gallery.available(stock) == [BM3D, FAST, OURS]
    assert gallery.name(OURS) == "B2G faithful" and gallery.name("b2g/fast+steps=7") == "b2g/fast+steps=7"
    assert set(gallery.NAMES) >= {row.label for row in stock}


def test_lacking_counts_and_prices_what_a_plan_misses(stock, tmp_path):
    plan = tmp_path / "plan.yml"
    plan.write_text("title: t\nblocks:\n- pictures: [skimage/astronaut, skimage/coffee, skimage/rocket]\n"
                    "  crop: 64\n  levels: [25, 50]\n  methods: [b2g/fast, b2g/faithful]\n")
    assert gallery.lacking(str(plan), stock, level=50.0).startswith(
        "Missing: 2 of 6 runs (about 16 s of CPU time): b2g sweep ")
    assert gallery.lacking(str(plan), stock, labels=(FAST,)).startswith("Missing: 4 of 6 runs")
    assert gallery.lacking(str(plan), stock, level=50.0, picture=PICTURES[0]) == ""
    assert "(of unknown cost)" in gallery.lacking(str(plan), [])
    assert gallery.lacking("no-such-plan", stock) == "There is no plan no-such-plan yet."


def test_small_print(stock):
    words = gallery.circumstances([row for row in stock if row.picture == PICTURES[0]])
    assert words == ("n = 1 picture (astronaut), central 64 × 64 pixels, 1 draw of noise, noise unclipped, "
                     "answers clipped to [0, 1], cpu")
    assert gallery.circumstances(stock).startswith("n = 2 pictures (astronaut, coffee), ")
    assert gallery.circumstances([]) == "n = 0"
    shown = gallery.notes("n = 2", "", "a < b.")
    assert repr(shown) == "[n = 2. a < b.]" and "a &lt; b." in shown.markup


def test_the_settings_behind_the_labels_are_the_profiles():
    row = record(PICTURES[0], OURS)
    assert canonical_json(row.settings) == METHODS["b2g"].profile("faithful").identity()
