"""What the settings of :class:`b2g.methods.B2G` may be, each alone and together."""

from __future__ import annotations

from b2g.errors import B2GError
from b2g.loop import PILOTS, VISIBLE
from b2g.losses import COMBINATIONS, OPERATORS
from b2g.method import check_choice, check_least
from b2g.posterior import POSTERIORS

CHOICES = {
    "visible": VISIBLE,
    "operator": OPERATORS,
    "combine": COMBINATIONS,
    "loss_norm": ("masked", "all"),
    "target": ("noisy", "hidden"),
    "pilot": PILOTS,
    "standout_on": ("features", "output"),
    "answer": ("average", "passes", "visible"),
    "input": ("masked", "recorrupted"),
    "noise": ("gaussian", "poisson", "correlated"),
    "patches": ("none", "nl_ridge", "lichi"),
    "posterior": POSTERIORS,
}
LEAST_SIDE = 64  # of a window: its borders, where the network sees one side only, must not be most of it


def check_settings(settings) -> None:
    """Refuses what cannot be: unknown choices, numbers out of range,
    and settings that do not go together."""
    for name, allowed in CHOICES.items():
        check_choice(name, getattr(settings, name), allowed)
    for name, least in (("passes", 1), ("draws", 0), ("side", 0), ("shuffle", 1)):
        check_least(name, getattr(settings, name), least)
    if settings.sigma is not None and not settings.sigma > 0:
        raise B2GError(f"b2g's sigma is a noise level on 0..255 and must be positive, not {settings.sigma}.")
    if settings.sigma is not None and settings.noise == "poisson":
        raise B2GError("b2g's sigma belongs to noise='gaussian'; leave it out, photons are estimated.")
    if not settings.strength > 0:
        raise B2GError(f"strength is the share of noise that is added and must be positive, not {settings.strength}.")
    if not 0 <= settings.weights < 1:
        raise B2GError(f"weights is the decay of averaged weights and must lie in [0, 1), not {settings.weights}.")
    if not 0 <= settings.hold < 1:
        raise B2GError(f"hold is the share of pixels held back and must lie in [0, 1), not {settings.hold}.")
    if 0 < settings.side < LEAST_SIDE:
        raise B2GError(f"side is 0 (all) or a window of at least {LEAST_SIDE} pixels, not {settings.side}.")
    if settings.side and settings.input == "masked" and (settings.law().dual or settings.standout_on == "output"):
        raise B2GError("a window (side) goes with a mask of a fixed law; take side=0, or mask='bernoulli'.")
    if settings.pilot == "patches" and settings.patches == "none":
        raise B2GError("pilot='patches' needs a patch-based denoiser: set patches='nl_ridge' or 'lichi'.")
    if settings.input == "recorrupted" and settings.posterior != "none":
        raise B2GError("posterior belongs to blind estimates; with input='recorrupted' set posterior='none'.")
    if settings.input == "recorrupted" and settings.visible != "none":
        raise B2GError("visible f(y) belongs to masks; with input='recorrupted' set visible='none'.")
    if settings.input == "recorrupted" and settings.output != "linear":
        raise B2GError("with input='recorrupted' the output is a change of either sign: set output='linear'.")
