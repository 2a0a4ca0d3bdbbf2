"""``denoise``: the one call behind which every method stands."""

from __future__ import annotations

import numbers
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from b2g import images
from b2g.capture import check_engine
from b2g.errors import B2GError, Diverged
from b2g.fit import autocast
from b2g.method import Circumstances, Denoised, Method
from b2g.methods import METHODS
from b2g.seeds import seed_for
from b2g.tiles import OVERLAP, tiled
from b2g.together import denoise_together, together_at_once


@dataclass(frozen=True)
class Result:
    """What :func:`denoise` returns.

    ``image`` is of the caller's own kind (numpy in, numpy out; 16-bit file in, 16-bit array out; a list for a
    list); ``history`` is one dict a logged step (``step``, ``loss``, ``seconds``, and ``psnr`` where a clean
    picture was given), or a list of such histories for several pictures; ``config`` holds every setting that
    was used.
    """

    image: Any
    history: list
    seconds: float
    method: str
    config: dict
    identity: str
    device: str
    seed: int
    incoming: Any = None

    def save(self, path) -> None:
        """Write the picture to a file, whole or not at all, in the depth it came in."""
        if isinstance(self.image, list):
            raise B2GError("save writes one picture; this result holds a list, so write each of result.image.")
        images.write(path, self.image, like=self.incoming)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """``"auto"`` is the first CUDA device, or else the CPU; a device that is not there is refused."""
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise B2GError(f"device must be 'auto', 'cpu' or 'cuda', not {device!r}.") from error
    if chosen.type not in ("cpu", "cuda"):
        raise B2GError(f"device must be 'auto', 'cpu' or 'cuda', not {device!r}.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise B2GError(f"device {device!r} is not on this machine; use device='auto'.")
    return chosen


def choose_method(method: str | Method = "b2g", profile: str | None = None, **settings) -> Method:
    """A configured method from its name, profile and single settings, or the one that is given."""
    if isinstance(method, Method):
        if profile is not None:
            raise B2GError("profile chooses the settings of a method by name; this method already has its own.")
        return method.changed(**settings)
    if method not in METHODS:
        raise B2GError(f"there is no method {method!r}: choose one of {', '.join(METHODS)}.")
    return METHODS[method].profile(profile, **settings)


@torch.inference_mode(False)
@torch.enable_grad()  # a fit needs gradients, whatever block it is called in
def denoise(
    noisy,
    method: str | Method = "b2g",
    profile: str | None = None,
    *,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool = True,
    precision: str = "auto",
    clean=None,
    checkpoint: str | Path | None = None,
    watch=None,
    log_every: int | None = None,
    together: bool | int | str = "auto",
    engine: str = "auto",
    tile: int | None = None,
    overlap: int = OVERLAP,
    **settings,
) -> Result:
    """Denoise a picture, or several, from nothing but itself.

    ``noisy``: a numpy array ``(H, W)``, ``(H, W, C)`` or ``(N, H, W, C)``, a torch tensor ``(H, W)``,
    ``(C, H, W)`` or ``(B, C, H, W)``, a PIL image, a path, or a list of those; gray or colour, 8 or 16 bit or
    float in [0, 1] (a float may leave the range: noise is not clipped), 16 pixels a side or more. Every
    picture of a batch is fitted on its own, with a seed of its own. The same ``seed`` gives the same bytes on a
    CPU; on a GPU some of PyTorch's sums have no fixed order (mirrored padding and bilinear growth, in ``dip``
    and the two MPI), and the last digits may differ.

    ``method`` is a name (``b2g.methods.METHODS``) or a configured instance; ``profile`` and any ``settings``
    (``steps=500``) choose its fields. ``clean`` is shown against (PSNR), never used. A killed fit goes on
    from ``checkpoint``. ``watch`` and ``log_every`` are for studies of one training (see
    :class:`b2g.method.Circumstances`). ``together``: whether a batch is fitted side by side, much faster for
    small pictures on a GPU, with other random numbers (:mod:`b2g.together`): True, False, so many at a time,
    or ``"auto"``, on a GPU up to 128 x 128 pixels. Raises :class:`b2g.errors.B2GError` with one sentence for
    bad input.
    """
    configured = tiled(choose_method(method, profile, **settings), tile, overlap)
    where = choose_device(device)
    autocast(where, precision)  # refuses an unknown precision, also for a method that makes no use of it
    circumstances = Circumstances(
        device=where, seed=_whole(seed), progress=progress, precision=precision, watch=watch, log_every=log_every,
        engine=engine,
    )  # fmt: skip
    check_engine(engine, where)
    if isinstance(noisy, (list, tuple)):
        if together not in ("auto", False):
            raise B2GError("together serves pictures of one size in one array; stack the list (numpy.stack) first.")
        return _denoise_list(noisy, configured, circumstances, clean, checkpoint)
    incoming, reference = _take_in(noisy, clean)
    if checkpoint is not None and len(incoming.batch) > 1:
        raise B2GError("checkpoint serves one picture; denoise the pictures of a batch one by one.")
    if watch is not None and len(incoming.batch) > 1:
        raise B2GError("watch serves one picture; denoise the pictures of a batch one by one.")
    began = time.perf_counter()
    answers = _answers(configured, incoming.batch, replace(circumstances, clean=reference), checkpoint, together)
    estimates = [_finite(answer.estimate, configured) for answer in answers]
    histories = [answer.history for answer in answers]
    return Result(
        image=incoming.restore(torch.cat(estimates)),
        history=histories[0] if len(histories) == 1 else histories,
        seconds=time.perf_counter() - began,
        method=configured.name,
        config=configured.config(),
        identity=configured.identity(),
        device=str(where),
        seed=circumstances.seed,
        incoming=incoming,
    )


def _answers(configured: Method, batch: Tensor, circumstances: Circumstances, checkpoint, together) -> list[Denoised]:
    """The method's answer to every picture of ``batch``, one by one or side by side."""
    where, clean = circumstances.device, circumstances.clean
    # The first picture keeps the seed itself, so a batch of one is that picture.
    seeds = [circumstances.seed if k == 0 else seed_for(circumstances.seed, k) for k in range(len(batch))]
    at_once = together_at_once(configured, batch, circumstances, together)
    if at_once > 1:
        answers = denoise_together(configured, batch, circumstances, seeds, at_once)
        spoilt = [k for k, answer in enumerate(answers) if isinstance(answer, Diverged)]
        if spoilt:
            which = f"picture {', '.join(map(str, spoilt))} (counted from 0) of {len(batch)}"
            raise Diverged(f"{configured.name} diverged on {which}; lower learning_rate or use float32.")
        return answers
    return [
        configured(
            picture.to(where),
            replace(
                circumstances,
                seed=seeds[k],
                clean=None if clean is None else clean[k : k + 1].to(where),
                checkpoint=None if checkpoint is None else Path(checkpoint),
            ),
        )
        for k, picture in enumerate(batch.split(1))
    ]


def _take_in(noisy, clean) -> tuple[images.Incoming, Tensor | None]:
    """The pictures, checked, and the clean ones as a batch of the same shape."""
    incoming = images.to_batch(noisy)
    reference = None if clean is None else images.to_batch(clean).batch
    if reference is not None and reference.shape != incoming.batch.shape:
        raise B2GError(f"clean is {tuple(reference.shape)} (B, C, H, W) but noisy is {tuple(incoming.batch.shape)}.")
    return incoming, reference


def _denoise_list(pictures, configured: Method, circumstances: Circumstances, clean, checkpoint) -> Result:
    """A list of pictures of any sizes and kinds, one after another; seeds as in a batch."""
    if not pictures:
        raise B2GError("the list of pictures is empty.")
    if clean is not None and not (isinstance(clean, (list, tuple)) and len(clean) == len(pictures)):
        raise B2GError(f"clean must be a list of {len(pictures)} pictures, one for each of noisy.")
    if checkpoint is not None:
        raise B2GError("checkpoint serves one picture; denoise the pictures of a list one by one.")
    if circumstances.watch is not None:
        raise B2GError("watch serves one picture; denoise the pictures of a list one by one.")
    for index, picture in enumerate(pictures):  # whatever can be refused is refused before the first fit
        _take_in(picture, None if clean is None else clean[index])
    results = [
        denoise(
            picture,
            configured,
            device=circumstances.device,
            seed=circumstances.seed if index == 0 else seed_for(circumstances.seed, index),
            progress=circumstances.progress,
            precision=circumstances.precision,
            log_every=circumstances.log_every,
            engine=circumstances.engine,
            clean=None if clean is None else clean[index],
        )
        for index, picture in enumerate(pictures)
    ]
    return replace(
        results[0],
        image=[result.image for result in results],
        history=[result.history for result in results],
        seconds=sum(result.seconds for result in results),
        incoming=None,
    )


def _finite(estimate: Tensor, configured: Method) -> Tensor:
    if not torch.isfinite(estimate).all():
        raise Diverged(f"{configured.name} diverged: its estimate is not finite; lower learning_rate or use float32.")
    return estimate.float()


def _whole(seed) -> int:
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise B2GError(f"seed must be a whole number from 0 up, not {seed!r}.")
    return int(seed)
