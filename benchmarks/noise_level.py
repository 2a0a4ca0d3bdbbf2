"""How near the blind estimates of the noise come: sigma of Gaussian noise, photons of Poisson noise.

    python benchmarks/noise_level.py                                          # the groups below, a few CPU minutes
    python benchmarks/noise_level.py --pictures skimage --levels 5 10 --gray --repeats 3
    python benchmarks/noise_level.py --show                                   # the table of what is stored

Stores each estimate in data/records/noise_level.csv and prints a table: per group of pictures and level the mean error,
the mean and the largest of its absolute value, in percent, and the share of estimates within 2 percent. The draws of
noise are those of the records. Nothing was tuned on the pictures named as test sets.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import b2g
from b2g import datasets
from b2g.anscombe import estimate_photons
from b2g.errors import B2GError
from b2g.files import replacing
from b2g.images import to_batch
from b2g.noise import add_noise, estimate_sigma
from b2g.runs.spec import noise_name

sys.path.insert(0, str(Path(__file__).parent))

from kept import stored as rows_of  # noqa: E402

RECORDS = Path(__file__).parents[1] / "data" / "records" / "noise_level.csv"
KEY = ("picture", "channels", "noise", "level", "repeat")
COLUMNS = (*KEY, "estimate")
# pictures (every so manieth), crop, gray, noise, levels, repeats
GROUPS = (
    ("set9", 1, None, False, "gaussian", (25, 50, 75, 100), 3),
    ("set9", 1, None, False, "gaussian", (5, 10, 15), 1),
    ("set9", 1, None, True, "gaussian", (5, 10, 15, 25, 50), 1),
    ("set9", 1, 128, False, "gaussian", (10, 25, 50, 100), 3),
    ("set9", 1, 64, False, "gaussian", (10, 25, 50, 100), 3),
    ("bsd68", 4, None, True, "gaussian", (5, 10, 15, 25, 50), 1),
    ("skimage", 1, None, False, "gaussian", (5, 10, 25, 50), 1),
    ("set9", 3, None, False, "poisson", (30, 100), 1),
)


def measure(pictures, crop, gray, noise, levels, repeats) -> list[dict]:
    """One row for every picture, level and draw."""
    rows = []
    for picture in pictures:
        name = f"{picture}@{crop}" if crop else picture
        clean = b2g.load(name)
        clean = clean.mean(-1) if gray and clean.ndim == 3 else clean
        for level in levels:
            for repeat in range(repeats):
                noisy = add_noise(clean, noise, level, seed=noise_name(name, noise, level, repeat))
                found = estimate_sigma(noisy) if noise == "gaussian" else estimate_photons(to_batch(noisy).batch)
                values = (name, 3 if clean.ndim == 3 else 1, noise, level, repeat, f"{found:.5g}")
                rows.append(dict(zip(COLUMNS, map(str, values))))
    return rows


def group(row: dict) -> tuple:
    """What rows of one line of the table share."""
    crop = row["picture"].partition("@")[2].split("+")[0]
    colour = "gray" if row["channels"] == "1" else "colour"
    return row["picture"].partition("/")[0], int(crop or 0), colour, row["noise"], float(row["level"])


def table(rows: list[dict]) -> str:
    """The errors of the estimates, in percent of the truth, a line for each group and level."""
    errors = defaultdict(list)
    for row in rows:
        errors[group(row)].append((100 * (float(row["estimate"]) / float(row["level"]) - 1), row["picture"]))
    lines = [f"{'pictures':10s} {'size':>6s} {'':6s} {'noise':8s} {'level':>6s} {'number':>6s} "
             f"{'mean':>7s} {'|mean|':>7s} {'worst':>7s} {'in 2 %':>7s}"]  # fmt: skip
    for (name, crop, colour, noise, level), found in sorted(errors.items()):
        values = [error for error, _ in found]
        worst, where = max(found, key=lambda pair: abs(pair[0]))
        near = sum(abs(value) <= 2 for value in values) / len(values)
        lines.append(
            f"{name:10s} {crop or 'whole':>6} {colour:6s} {noise:8s} {level:6g} {len(values):6d} "
            f"{sum(values) / len(values):+7.2f} {sum(map(abs, values)) / len(values):7.2f} "
            f"{worst:+7.2f} {near:7.0%}  {where}"
        )
    return "\n".join(lines)


def stored() -> list[dict]:
    return rows_of(RECORDS)


def store(rows: list[dict]) -> None:
    """Add rows to the records; a new estimate takes the place of an old one."""
    merged = {tuple(row[name] for name in KEY): row for row in [*stored(), *rows]}
    order = sorted(merged, key=lambda key: (key[0], int(key[1]), key[2], float(key[3]), int(key[4])))
    with replacing(RECORDS) as file:
        lines = [",".join(COLUMNS), *(",".join(merged[key][name] for name in COLUMNS) for key in order)]
        file.write(("\n".join(lines) + "\n").encode())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", help="a data set, e.g. set9; without it, the groups of this file")
    parser.add_argument("--every", type=int, default=1, help="take every so manieth picture (1)")
    parser.add_argument("--crop", type=int, help="side of the central square; without it, whole pictures")
    parser.add_argument("--gray", action="store_true", help="the mean of the colours")
    parser.add_argument("--noise", default="gaussian", choices=("gaussian", "poisson"))
    parser.add_argument("--levels", type=float, nargs="+", default=(25, 50), help="sigma on 0..255, or photons (25 50)")
    parser.add_argument("--repeats", type=int, default=1, help="draws of noise (1)")
    parser.add_argument("--show", action="store_true", help="measure nothing, print what is stored")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    options = parser.parse_args(arguments)
    if options.show:
        print(table(stored()))
        return 0
    one = (options.pictures, options.every, options.crop, options.gray, options.noise, options.levels, options.repeats)
    try:
        for name, every, *how in [one] if options.pictures else GROUPS:
            rows = measure(datasets.names(name)[::every], *how)
            print(table(rows), flush=True)
            if not options.dry:
                store(rows)
    except B2GError as error:
        print(f"noise_level: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
