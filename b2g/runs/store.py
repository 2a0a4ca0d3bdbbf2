"""Where records are kept: SQLite while a sweep works, sorted CSV in data/records/ for keeping.

A record is committed before the next run begins, so a kill loses the runs in flight and nothing else. The CSV
files are written whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from b2g.errors import B2GError
from b2g.files import replacing
from b2g.runs.record import COLUMNS, Record
from b2g.runs.work import Outcome

_FIRST = ("id", "step", "seconds", "loss", "psnr")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, state TEXT NOT NULL, row TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS histories (id TEXT PRIMARY KEY, entries TEXT NOT NULL);
"""


@dataclass(frozen=True)
class Merged:
    """What a merge did: records that were new, that took the place of a worse one,
    that were known already."""

    new: int = 0
    better: int = 0
    known: int = 0


class Store:
    """The working store of a sweep, a SQLite file; safe against kills, and for several processes at once."""

    def __init__(self, path: str | Path):
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._base = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise B2GError(f"{path} is not a store of runs ({error}); move it away or name another file.") from error

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome, at once and whole."""
        self.merge([outcome.record], {outcome.record.id: outcome.history} if outcome.history else {})

    def merge(self, records, histories: dict[str, list[dict]] = {}) -> Merged:  # noqa: B006 (never changed)
        """Take in records by identity. Of two for one run the better stays (:func:`better`),
        whichever came first."""
        count = {"new": 0, "better": 0, "known": 0}
        self._base.execute("BEGIN IMMEDIATE")
        try:
            for record in records:
                kept = self._get(record.id)
                kind = "new" if kept is None else "better" if better(kept, record) == record != kept else "known"
                count[kind] += 1
                if kind != "known":
                    self._base.execute("REPLACE INTO runs VALUES (?, ?, ?)",
                                       (record.id, record.state, json.dumps(record.row())))
                    self._base.execute("DELETE FROM histories WHERE id = ?", (record.id,))
                if record.id in histories and self._get(record.id) == record:
                    self._base.execute("REPLACE INTO histories VALUES (?, ?)",
                                       (record.id, json.dumps(histories[record.id])))
            self._base.execute("COMMIT")
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        return Merged(**count)

    def records(self) -> list[Record]:
        """All records, sorted by id."""
        return [Record.read(json.loads(row)) for (row,) in self._base.execute("SELECT row FROM runs ORDER BY id")]

    def histories(self) -> dict[str, list[dict]]:
        rows = self._base.execute("SELECT id, entries FROM histories ORDER BY id")
        return {id: json.loads(text) for id, text in rows}

    def finished(self, retry: bool = False) -> set[str]:
        """The ids that need no run: all with a record, or (``retry``) those that are done."""
        where = " WHERE state = 'done'" if retry else ""
        return {id for (id,) in self._base.execute("SELECT id FROM runs" + where)}

    def close(self) -> None:
        self._base.close()

    def _get(self, id: str) -> Record | None:
        found = self._base.execute("SELECT row FROM runs WHERE id = ?", (id,)).fetchone()
        return None if found is None else Record.read(json.loads(found[0]))


def better(one: Record, other: Record) -> Record:
    """Which of two records of one run is kept: the done one, then the earlier, then the first by its text.

    The order of the arguments makes no difference, so merges in any order end in the same files.
    """
    return min(one, other, key=lambda r: (not r.done, r.finished, json.dumps(r.row())))


def read_folder(folder: str | Path) -> tuple[list[Record], dict[str, list[dict]]]:
    """The records and histories of a folder such as data/records/ (none where there are no files)."""
    folder = Path(folder)
    records = [Record.read(row) for row in _rows(folder / "runs.csv")]
    histories: dict[str, list[dict]] = {}
    for row in _rows(folder / "histories.csv"):
        entry = {key: float(text) for key, text in row.items() if text and key != "id"}
        histories.setdefault(row["id"], []).append(entry | {"step": int(entry["step"])})
    return records, histories


def write_folder(folder: str | Path, records, histories: dict[str, list[dict]]) -> None:
    """Write runs.csv and histories.csv, sorted by id."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "runs.csv", COLUMNS, (record.row() for record in sorted(records, key=lambda r: r.id)))
    entries = [{"id": id, **entry} for id in sorted(histories) for entry in histories[id]]
    names = _FIRST + tuple(sorted({name for entry in entries for name in entry} - set(_FIRST)))
    _write(folder / "histories.csv", names, ({k: _number(v) for k, v in entry.items()} for entry in entries))


def read_any(source: str | Path) -> tuple[list[Record], dict[str, list[dict]]]:
    """Records and histories from a folder, from one runs.csv (with its histories.csv
    beside it) or from a store."""
    path = Path(source)
    if path.is_dir():
        if not (path / "runs.csv").is_file():
            raise B2GError(f"{source} holds no runs.csv; name a folder of records, a runs.csv or a .sqlite store.")
        return read_folder(path)
    if not path.is_file():
        raise B2GError(f"{source} does not exist; name a folder of records, a runs.csv or a .sqlite store.")
    if path.suffix == ".sqlite":
        store = Store(path)
        try:
            return store.records(), store.histories()
        finally:
            store.close()
    if path.name == "runs.csv":
        return read_folder(path.parent)
    return [Record.read(row) for row in _rows(path)], {}


def merge_into(folder: str | Path, records, histories: dict[str, list[dict]]) -> Merged:
    """Merge into the CSV files of ``folder``, without loss or duplicate."""
    store = Store(":memory:")
    store.merge(*read_folder(folder))
    merged = store.merge(records, histories)
    write_folder(folder, store.records(), store.histories())
    store.close()
    return merged


def _number(value):
    return f"{value:.6g}" if isinstance(value, float) else value


def _rows(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and "id" not in rows[0]:
        raise B2GError(f"{path} is not a table of records: its first column must be id.")
    return rows


def _write(path: Path, names, rows) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())
