"""What a run leaves: one row of data/records/runs.csv, done or failed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from b2g.errors import B2GError
from b2g.method import canonical_json
from b2g.methods import METHODS
from b2g.runs.spec import Run

STATES = ("done", "diverged", "out of memory", "killed", "refused", "failed")


@dataclass(frozen=True)
class Record:
    """A run's specification, its scores, and its circumstances; ``None`` where a value is not known.

    ``psnr`` is of the answer clipped to [0, 1] and not rounded, ``psnr_8bit`` of the answer rounded to 8
    bits, ``psnr_noisy`` of the noisy picture as it is. ``ssim_2d``, ``ssim_matlab_volume``: see
    :func:`b2g.metrics.ssim`. ``kept`` is the part of the answer that lies in data/gallery (left, top, width,
    height), ``psnr_kept`` that part's PSNR after rounding. ``seconds`` passed on the clock, ``cpu_seconds``
    in all threads of the process. ``settings`` holds every setting of the method, with ``method`` and
    ``revision``.
    """

    id: str
    picture: str
    digest: str
    noise: str
    level: float
    repeat: int
    protocol: str
    watch: str
    method: str
    settings: dict
    state: str = "done"
    reason: str = ""
    psnr_noisy: float | None = None
    psnr: float | None = None
    psnr_8bit: float | None = None
    ssim_2d: float | None = None
    ssim_matlab_volume: float | None = None
    lpips: float | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    device: str = ""
    machine: str = ""
    precision: str = ""
    torch: str = ""
    b2g: str = ""
    commit: str = ""
    finished: str = ""
    kept: str = ""
    psnr_kept: float | None = None

    @classmethod
    def of(cls, run: Run, **outcome) -> "Record":
        """The record of ``run`` with what came of it."""
        spec = asdict(run)
        settings = json.loads(spec.pop("method"))
        return cls(id=run.id, method=settings["method"], settings=settings, **spec, **outcome)

    def run(self) -> Run:
        """The specification that this record belongs to."""
        return Run(self.picture, self.digest, self.noise, self.level, self.repeat, canonical_json(self.settings),
                   self.protocol, self.watch)

    @property
    def done(self) -> bool:
        return self.state == "done"

    @property
    def dataset(self) -> str:
        return self.picture.partition("/")[0]

    @property
    def crop(self) -> int | None:
        """The side of the square that was cut out, None for the whole picture."""
        _, _, crop = self.picture.partition("@")
        return int(crop.split("+")[0]) if crop else None

    @property
    def key(self) -> tuple:
        """What two records must share to be compared: the same noisy picture."""
        return self.picture, self.noise, self.level, self.repeat, self.protocol

    @property
    def label(self) -> str:
        """The method's name, the profile it is nearest to, and the settings that differ from it."""
        return label(self.settings, self.level)

    def row(self) -> dict[str, str]:
        """As text for the CSV."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["settings"] = canonical_json(self.settings)
        return {name: "" if value is None else format(value, "g") if name == "level" else str(value)
                for name, value in values.items()}

    @classmethod
    def read(cls, row: dict[str, str]) -> "Record":
        """From the text of a CSV row; refused where the row's id is not that of its specification."""
        unknown = set(row) - {f.name for f in fields(cls)}
        if unknown or None in row.values():
            others = ", ".join(map(str, unknown)) or "fewer"
            raise B2GError(f"a record has the columns {', '.join(COLUMNS)}; not {others}.")
        try:
            values = {name: _PARSE.get(name, str)(text) for name, text in row.items()}
            record = cls(**values)
        except (ValueError, TypeError) as error:
            raise B2GError(f"record {row.get('id')} cannot be read: {error}.") from error
        if record.run().id != record.id:
            raise B2GError(f"record {record.id} is not that of its specification, whose id is {record.run().id}; "
                           "it was changed by hand or is damaged.")
        return record


def label(settings: dict, level: float | None = None) -> str:
    """A short name for settings: ``b2g/fast``, ``b2g/faithful+omega=0.4``, ``bm3d+sigma=given``."""
    name = settings["method"]
    method = METHODS.get(name)
    if method is None:
        return name
    settings = {f.name: f.default for f in fields(method)} | settings  # a setting that was added later had its default
    best = None
    for profile in method.profiles:
        full = asdict(method.profile(profile))
        changed = {key: settings[key] for key in full if _plain(settings[key]) != _plain(full[key])}
        if profile != "smoke" and (best is None or len(changed) < len(best[1])):
            best = profile, changed
    profile, changed = best
    title = name if len([p for p in method.profiles if p != "smoke"]) == 1 else f"{name}/{profile}"
    told = lambda key, value: "given" if key == "sigma" and value == level else _short(value)  # noqa: E731
    parts = [f"{key}={told(key, value)}" for key, value in changed.items()]
    return "+".join([title, *parts])


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _short(value) -> str:
    if isinstance(value, float):
        return format(value, "g")
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _optional(text: str) -> float | None:
    return float(text) if text else None


_PARSE = {"settings": json.loads, "level": float, "repeat": int}
_PARSE |= {f.name: _optional for f in fields(Record) if f.type == "float | None"}
COLUMNS = tuple(f.name for f in fields(Record))
