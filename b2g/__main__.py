"""The command line:
``b2g denoise | score | noise | methods | datasets | sweep | records | verify | train | release``.

Exit code 0 when done, 2 with one sentence on the standard error for bad input, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from pathlib import Path

from b2g import catalogue
from b2g.errors import B2GError
from b2g.runs.command import add_commands, run_records, run_sweep, run_verify
from b2g.tiles import OVERLAP, tiled
from b2g.training_command import add_training_commands, run_release, run_train

_HARDLY_ANY = 1.5  # of 255: what the rounding to 8 bits and a last touch of texture look like


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="b2g", description="Denoise a picture with a network trained on that one picture."
    )
    commands = parser.add_subparsers(dest="command", required=True)

    denoise = commands.add_parser("denoise", help="denoise picture files, or pictures of a data set")
    denoise.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, or a name such as set9/F16")
    denoise.add_argument("-o", "--output", help="file (one picture) or folder; by default PICTURE-denoised")
    denoise.add_argument("--method", default="b2g", help="see 'b2g methods' (default: b2g)")
    denoise.add_argument("--profile", help="the method's named settings, e.g. fast, best, camera, paper")
    denoise.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change one setting")
    denoise.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    denoise.add_argument("--precision", default="auto", help="auto, float32 or bfloat16 (default: auto)")
    denoise.add_argument("--seed", type=int, default=0)
    denoise.add_argument("--clean", help="the clean picture: PSNR is shown against it, it is not used")
    denoise.add_argument("--noise", metavar="KIND:LEVEL", help="first add noise, e.g. gaussian:25 or poisson:30")
    denoise.add_argument("--checkpoint", help="a file that a killed fit goes on from")
    denoise.add_argument("--tile", type=int, metavar="PIXELS", help="cut larger pictures into tiles: bounds the memory")
    denoise.add_argument(
        "--overlap", type=int, default=OVERLAP, metavar="PIXELS", help="of tiles (default: %(default)s)"
    )
    denoise.add_argument("--quiet", action="store_true", help="no progress")

    score = commands.add_parser("score", help="PSNR and SSIM of a denoised picture against the clean one")
    score.add_argument("clean")
    score.add_argument("denoised")

    noise = commands.add_parser("noise", help="how much noise a picture has: an estimate of sigma on 0..255")
    noise.add_argument("pictures", nargs="+", metavar="PICTURE", help="a file, or a name such as set9/F16")

    catalogue.add_command(commands)
    datasets = commands.add_parser("datasets", help="the data sets, or the pictures of one")
    datasets.add_argument("dataset", nargs="?")
    datasets.add_argument("--fetch", action="store_true", help="fetch and verify every picture of the data set")
    add_commands(commands)
    add_training_commands(commands)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code = _COMMANDS[options.command](options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # a reader such as head has seen enough; nothing more is to be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (B2GError, OSError) as error:
        print(f"b2g {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"b2g {options.command}: interrupted; no file was left half-written.", file=sys.stderr)
        return 130


def _settings(pairs: list[str]) -> dict:
    settings = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise B2GError(f"--set takes NAME=VALUE, e.g. --set steps=500, not {pair!r}.")
        settings[name.strip()] = _value(text)
    return settings


def _value(text: str):
    """A setting as JSON or as Python writes it (true or True, [8,8] or 8,8); else the text itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError):
            continue
    return text


def _output(picture: str, given: str | None, several: bool) -> Path:
    """Where the answer goes; a data-set name has no folder, so it goes to the current one."""
    source = Path(picture)
    suffix = source.suffix if source.is_file() else ".png"
    name = f"{source.stem if source.is_file() else picture.replace('/', '-')}-denoised{suffix}"
    if given is None:
        return (source.parent if source.is_file() else Path()) / name
    target, folder = Path(given), given.endswith(("/", os.sep)) or Path(given).is_dir()
    if several and not folder and (target.exists() or target.suffix):
        raise B2GError(f"--output {given} is a file, but several pictures need a folder; end its name with a slash.")
    return target / name if several or folder else target


def _make_folder(output: str | None, targets: list[Path]) -> None:
    """The folder that --output names, once it is sure that every picture can be read
    and has a file of its own."""
    twice = [target for target in targets if targets.count(target) > 1]
    if twice:
        raise B2GError(f"two pictures would be written to {twice[0]}; denoise them one by one, or into two folders.")
    if output is not None and targets[0] != Path(output):
        Path(output).mkdir(parents=True, exist_ok=True)


def _read(name: str):
    """A picture file, or a data set's picture where no such file exists."""
    import b2g

    known = {entry.partition("/")[0] for entry in b2g.datasets.names()}
    if not Path(name).exists() and name.partition("/")[0] in known and not Path(name).suffix:
        return b2g.load(name)
    return Path(name)


def _with_noise(picture, spec: str, seed: int):
    """The picture as floats with noise added, and itself as the clean one to compare with."""
    import b2g
    from b2g.images import to_batch

    kind, colon, level = spec.partition(":")
    try:
        level = float(level)
    except ValueError:
        raise B2GError(f"--noise takes KIND:LEVEL, e.g. gaussian:25, not {spec!r}.") from None
    incoming = to_batch(picture)
    return b2g.add_noise(incoming.batch, kind, level, seed=seed), incoming.batch


def _denoise(options) -> int:
    import b2g
    from b2g.face import choose_device, choose_method
    from b2g.images import check_writable, to_batch

    # Whatever can be refused is refused before the first fit, so no minutes are lost.
    method = choose_method(options.method, options.profile, **_settings(options.set))
    method = tiled(method, options.tile, options.overlap)
    choose_device(options.device)
    several = len(options.pictures) > 1
    if several and (options.clean or options.checkpoint):
        raise B2GError("--clean and --checkpoint go with one picture.")
    jobs = []
    for name in options.pictures:
        picture = _read(name)
        jobs.append((name, picture, to_batch(picture), _output(name, options.output, several)))
    _make_folder(options.output, [target for *_, target in jobs])
    for _, _, incoming, target in jobs:
        check_writable(target, incoming)
    for name, picture, incoming, target in jobs:
        noisy, clean = incoming.batch, None
        if options.noise:
            noisy, clean = _with_noise(picture, options.noise, options.seed)
        if options.clean:
            clean = to_batch(_read(options.clean)).batch
        result = b2g.denoise(
            noisy, method, device=options.device, seed=options.seed, progress=not options.quiet,
            precision=options.precision, clean=clean, checkpoint=options.checkpoint,
        )  # fmt: skip
        b2g.images.write(target, incoming.restore(result.image), like=incoming)
        _warn_of_correlated_noise(name, noisy, result.config)
        line = f"{name} -> {target}  {result.seconds:.1f} s on {result.device}"
        if clean is not None:
            line += f"  {b2g.psnr(clean, noisy, clip=False):.2f} -> {b2g.psnr(clean, result.image):.2f} dB"
        print(line)
    return 0


def _warn_of_correlated_noise(name: str, noisy, config: dict) -> None:
    """Says on the error output when a method that was to find white noise found hardly any, as in a camera's JPEG."""
    import b2g

    asks = config.get("noise") == "gaussian" and config.get("sigma") is None
    if not asks or config.get("input") == "masked":  # a network that hides pixels is told no level
        return
    if (sigma := b2g.estimate_sigma(noisy)) < _HARDLY_ANY:
        print(
            f"{name}: hardly any white noise was found (sigma {sigma:.1f} of 255), so hardly any was removed. If it is "
            f"noisy, neighbouring pixels share the noise, as after a camera's JPEG: add --set noise=correlated.",
            file=sys.stderr,
        )


def _score(options) -> int:
    import b2g
    from b2g.images import to_batch

    clean, denoised = (to_batch(_read(name)).batch for name in (options.clean, options.denoised))
    if clean.shape != denoised.shape:
        raise B2GError(
            f"{options.clean} is {_size(clean)} but {options.denoised} is {_size(denoised)}: score needs equal sizes."
        )
    print(f"PSNR {b2g.psnr(clean, denoised):.2f} dB")
    print(f"SSIM {b2g.ssim(clean, denoised):.4f} (2-D, Gaussian window, mean of channels)")
    if clean.shape[1] == 3:
        print(f"SSIM {b2g.ssim(clean, denoised, 'matlab-volume'):.4f} (MATLAB's ssim on the colour array as a volume)")
    return 0


def _noise(options) -> int:
    import b2g

    for name in options.pictures:
        picture = _read(name)
        white, shared = b2g.estimate_sigma(picture), b2g.estimate_correlated_sigma(picture)
        print(f"{name}  sigma {white:.2f} of 255 if the noise is white, {shared:.2f} if neighbouring pixels share it")
    return 0


def _size(batch) -> str:
    _, channels, height, width = batch.shape
    return f"{width}x{height} with {channels} channel{'s' if channels > 1 else ''}"


def _datasets(options) -> int:
    from b2g import datasets

    if options.dataset is None:
        if options.fetch:
            raise B2GError("--fetch goes with one data set, e.g. b2g datasets set9 --fetch.")
        for entry in datasets.describe():
            print(entry)
        return 0
    for name in datasets.names(options.dataset):
        if options.fetch:
            datasets.fetch(name)
        print(name)
    return 0


_COMMANDS = {
    "denoise": _denoise, "score": _score, "noise": _noise, "methods": catalogue.run_methods, "datasets": _datasets,
    "sweep": run_sweep, "records": run_records, "verify": run_verify, "train": run_train,
    "release": run_release,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
