"""What the benchmarks share: a report that grows item by item on disk, and a time limit that ends work cleanly."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import torch

from b2g.files import replacing
from b2g.runs.work import _circumstances

STATES = ("passed", "failed", "skipped", "measured", "unfinished")


class TimeUp(BaseException):
    """The time limit has come; no handler of errors on the way takes it for one."""


class Skip(Exception):
    """This item cannot be done here; the message says why."""


@contextmanager
def time_limit(minutes: float):
    """Raise :class:`TimeUp` in the block when its time is over (Unix, main thread); yields the seconds left, a call."""
    deadline = time.monotonic() + 60 * minutes

    def up(number, frame):
        raise TimeUp

    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, 60 * minutes)
    try:
        yield lambda: deadline - time.monotonic()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Report:
    """``report.json`` and ``report.md`` in a folder: one section a subcommand, rewritten whole after every item."""

    def __init__(self, folder: Path, section: str, device: torch.device):
        self.folder, self.path = folder, folder / "report.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.content = json.loads(self.path.read_text("utf-8")) if self.path.is_file() else {}
        keep = ("machine", "torch", "b2g", "commit", "finished")
        about = {name: value for name, value in _circumstances(str(device), "").items() if name in keep}
        self.section = {**about, "device": str(device), "items": []}
        self.content[section] = self.section

    def add(self, name: str, state: str, text: str, **figures) -> None:
        """One item: what it is, its state, a sentence, and its figures (numbers, or lists of rows)."""
        self.section["items"].append({"name": name, "state": state, "text": text, "figures": figures})
        self.section["finished"] = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ")
        print(f"{state:10s} {name}: {text}", flush=True)
        with replacing(self.path) as file:
            file.write(json.dumps(self.content, indent=1).encode())
        with replacing(self.folder / "report.md") as file:
            file.write(self.markdown().encode())

    def attempt(self, name: str, call) -> None:
        """Add what ``call`` returns (state, text, figures); a refusal or an error is an item, too."""
        began = time.perf_counter()
        try:
            state, text, figures = call()
        except TimeUp as up:
            self.add(name, "unfinished", str(up) or "the time limit came first")
            raise
        except Skip as reason:
            state, text, figures = "skipped", str(reason), {}
        except Exception as error:  # one item's failure must not hide the others
            state, text, figures = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", {}
        self.add(name, state, text, **figures, took_s=round(time.perf_counter() - began, 2))

    @property
    def failed(self) -> bool:
        return any(item["state"] == "failed" for item in self.section["items"])

    def markdown(self) -> str:
        lines = ["# GPU report", ""]
        for section, content in self.content.items():
            about = ", ".join(str(content[k]) for k in ("machine", "torch", "commit", "finished") if content.get(k))
            lines += [f"## {section}", "", about, "", "| item | state | |", "| --- | --- | --- |"]
            lines += [f"| {item['name']} | {item['state']} | {item['text'].replace('|', '/')} |"
                      for item in content["items"]]
            lines.append("")
        return "\n".join(lines)
