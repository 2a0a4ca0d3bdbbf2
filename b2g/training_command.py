"""The commands that make weights: ``b2g train | release``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from b2g.errors import B2GError
from b2g.fit import autocast
from b2g.released import release
from b2g.training import Recipe, check_output, train


def add_training_commands(commands) -> None:
    """Their parsers, added to argparse's ``commands``."""
    parser = commands.add_parser("train", help="train a many-image method on the 400 training pictures of BSDS500")
    parser.add_argument("method", help="such as noise2noise; 'b2g methods' lists them under 'many images'")
    parser.add_argument("--recipe", default="small", help="small (a CPU can do it) or full, the published length")
    parser.add_argument("--noise", help="frozen (once per picture, the recipe's) or fresh (drawn anew for every crop)")
    parser.add_argument("--sigma", type=float, help="one noise level on 0..255 in place of the recipe's")
    parser.add_argument("--channels", type=int, default=3, help="3 (colour) or 1 (gray)")
    parser.add_argument("--steps", type=int, help="other than the recipe's")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures, for a trial")
    parser.add_argument("-o", "--output", help="by default METHOD-RECIPE-CHANNELS.safetensors")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--checkpoint", help="a file that a killed training goes on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    filed = commands.add_parser("release", help="file trained weights and their record among the released ones")
    filed.add_argument("weights", nargs="+", metavar="FILE", help="what 'b2g train' wrote, its .json beside it")
    filed.add_argument("--data", type=Path, help="data/ of a working copy (default: this package's own)")


def chosen(name: str, recipe: str, changes: dict):
    """The method called ``name``, in the profile that means this recipe, and the recipe with ``changes``."""
    from b2g.methods import METHODS
    from b2g.trained import Trained

    trainable = {key: kind for key, kind in METHODS.items() if issubclass(kind, Trained)}
    if name not in trainable:
        raise B2GError(f"{name!r} is no method to be trained: choose one of {', '.join(trainable)}.")
    kind = trainable[name]
    meant = [kind.profile(profile) for profile in kind.profiles]
    method = next((one for one in meant if one.recipe == recipe), None) or kind(recipe=recipe)
    return method, method.chosen_recipe(**changes)


def changes_of(options) -> dict:
    """The recipe's values that the command line sets."""
    found = {"noise": options.noise, "sigma": options.sigma, "steps": options.steps, "channels": options.channels}
    found = {key: value for key, value in found.items() if value is not None}
    return found | ({"sigma_to": 0.0} if options.sigma is not None else {})


def named(recipe: Recipe, base: Recipe, limit: int | None = None) -> Recipe:
    """A recipe with a name of its own where its values are not those of ``base``, its channels aside, or where
    only the first ``limit`` pictures are taken: a trial must not pass for the training."""
    if limit is not None:
        return replace(named(recipe, base), name=f"{named(recipe, base).name}-first{limit}")
    if replace(recipe, channels=base.channels) == base:
        return recipe
    level = f"{recipe.sigma:g}" + (f"to{recipe.sigma_to:g}" if recipe.sigma_to else "")
    return replace(recipe, name=f"{base.name}-{recipe.noise}-{level}-{recipe.steps}")


def run_train(options) -> int:
    """``b2g train``: one line of what was written where."""
    from b2g.face import choose_device

    method, recipe = chosen(options.method, options.recipe, changes_of(options))
    recipe = named(recipe, method.chosen_recipe(), options.limit)
    output = check_output(options.output or f"{method.name}-{recipe.name}-{recipe.channels}.safetensors")
    device = choose_device(options.device)
    autocast(device, options.precision)  # refuses an unknown precision
    if options.seed < 0:
        raise B2GError(f"seed must be a whole number from 0 up, not {options.seed}.")
    result = train(
        method, recipe, output, device=device, seed=options.seed, progress=not options.quiet, limit=options.limit,
        checkpoint=None if options.checkpoint is None else Path(options.checkpoint), precision=options.precision,
    )  # fmt: skip
    last = result.history[-1]
    done = f"{last['step']} steps, loss {last['loss']:.5f}, {result.seconds:.1f} s on {device}"
    print(f"{method.name} -> {output}  {done}")
    return 0


def run_release(options) -> int:
    """``b2g release``: file weights under data/weights, with a row in the manifest."""
    data = options.data or Path(__file__).parents[1] / "data"
    if not (data / "manifest-released.csv").is_file():
        raise B2GError(f"{data} has no manifest-released.csv; name data/ of a working copy by --data.")
    for name in options.weights:
        row = release(Path(name), data)
        print(f"{name} -> {data / row['file']}  {row['bytes']} bytes")
    return 0
