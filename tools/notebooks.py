"""Execute, stage and refresh the book's notebooks.

    python tools/notebooks.py execute [NAME ...] [--jobs N]   run what changed, into _build/executed
    python tools/notebooks.py stage                           fill _build/book: what Sphinx reads
    python tools/notebooks.py preview NAME                    fill _build/preview/NAME with that page alone
    python tools/notebooks.py refresh [NAME ...]              write outputs back into book/*.ipynb

An executed copy carries the key of everything it was made from (its code cells, the package, the data,
the pins, the budget). The copy and its key are one file that appears by one rename, so an interrupted
execution leaves nothing that counts as done, and a change of prose runs nothing.
"""

import argparse
import concurrent.futures
import hashlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import yaml
from cells import code_cells, has_tag, key_of, normalised, setup_source

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"
CELL_TIMEOUT = 1800
HEARTBEAT = 10


# --- what there is ------------------------------------------------------------------------------------

def documents():
    """The documents the table of contents lists, in order, as paths inside book/."""
    names = []

    def walk(node):
        if isinstance(node, dict):
            names.extend(node[key] for key in ("root", "file") if key in node)
            node = list(node.values())
        if isinstance(node, list):
            for child in node:
                walk(child)

    walk(yaml.safe_load((BOOK / "_toc.yml").read_text()))
    return [_source(name) for name in names]


def _source(name):
    for suffix in ("", ".ipynb", ".md"):
        path = BOOK / f"{name}{suffix}"
        if path.is_file():
            return path
    raise SystemExit(f"book/_toc.yml lists {name}, but neither book/{name}.ipynb nor book/{name}.md exists.")


def chosen(names):
    """The notebooks called by name (with or without folder and suffix), or all of the book's."""
    if names:
        paths = [BOOK / f"{Path(name).stem}.ipynb" for name in names]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise SystemExit(f"There is no notebook book/{missing[0]}.")
        return paths
    return [path for path in documents() if path.suffix == ".ipynb"]


# --- identity -----------------------------------------------------------------------------------------

def circumstances():
    """Digest of what every notebook reads besides itself: package, data, pins, budget, Python."""
    files = [ROOT / "requirements.txt", *sorted((ROOT / "b2g").rglob("*.py"))]
    files += sorted(path for path in (ROOT / "data").rglob("*") if path.is_file())
    digest = hashlib.sha256(repr((sys.version_info[:2], os.environ.get("B2G_BUDGET", ""))).encode())
    for path in files:
        digest.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def executed_copy(path, around):
    """The executed copy of the notebook at `path` if it is current, else None."""
    target = EXECUTED / path.name
    try:
        copy = nbformat.read(target, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return None
    current = copy.metadata.get("b2g_key") == key_of(nbformat.read(path, as_version=4), around)
    return copy if current else None


# --- one notebook -------------------------------------------------------------------------------------

def write_atomically(path, data):
    """Put the bytes `data` at `path` by one rename; True if that changed the file."""
    if isinstance(data, str):
        data = data.encode()
    if path.is_file() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with open(temporary, "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    return True


def run_one(path, around):
    """Execute one notebook in the book's folder; returns the seconds, or raises with the failing cell."""
    import papermill

    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch, path.name)
            papermill.execute_notebook(path, output, cwd=path.parent, kernel_name="python3", progress_bar=False,
                                       execution_timeout=CELL_TIMEOUT, extra_arguments=["--log-level=ERROR"])
            copy = normalised(nbformat.read(output, as_version=4))
    except papermill.PapermillExecutionError as error:
        trace = "\n".join(error.traceback)
        raise RuntimeError(f"cell {error.cell_index + 1} of the file: {error.ename}: {error.evalue}"
                           f"\n\n{error.source}\n\n{trace}") from None
    copy.metadata["b2g_key"] = key_of(copy, around)
    write_atomically(EXECUTED / path.name, nbformat.writes(copy))
    return time.monotonic() - started


# --- the commands -------------------------------------------------------------------------------------

def execute(names, jobs):
    """Run the notebooks that changed, `jobs` at a time, and say every few seconds what is running."""
    around = circumstances()
    paths = chosen(names)
    queue = [path for path in paths if executed_copy(path, around) is None]
    print(f"notebooks: {len(paths) - len(queue)} current, {len(queue)} to run", flush=True)
    failures, began, running = [], {}, {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        while queue or running:
            while queue and len(running) < jobs:
                path = queue.pop(0)
                running[pool.submit(run_one, path, around)] = path
                began[path] = time.monotonic()
            done, _ = concurrent.futures.wait(running, HEARTBEAT, concurrent.futures.FIRST_COMPLETED)
            for future in done:
                path = running.pop(future)
                try:
                    print(f"  {path.stem}: done in {future.result():.0f} s", flush=True)
                except Exception as error:
                    failures.append(f"book/{path.name}, {str(error) or type(error).__name__}")
                    print(f"  {path.stem}: FAILED", flush=True)
            if not done:
                now = time.monotonic()
                words = ", ".join(f"{path.stem} {now - began[path]:.0f} s" for path in running.values())
                print(f"  running: {words}; {len(queue)} waiting", flush=True)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    return 1 if failures else 0


def with_outputs(path, around):
    """The notebook's own prose with the outputs of its executed copy."""
    copy = executed_copy(path, around)
    if copy is None:
        raise SystemExit(f"book/{path.name} has changed since it was executed; run: make book")
    notebook = nbformat.read(path, as_version=4)
    for cell, ran in zip(code_cells(notebook), code_cells(copy)):
        cell.outputs = ran.outputs
    return normalised(notebook)


def stage():
    """Mirror into _build/book what Sphinx reads, touching only what differs."""
    settings = [BOOK / "_toc.yml", *sorted((BOOK / "_ext").glob("*.py"))]
    digest = hashlib.sha256(b"".join(
        path.read_bytes() for path in [*settings, ROOT / "_config.yml", ROOT / "requirements.txt"])).hexdigest()
    if write_atomically(BUILD / "settings.sha256", digest):
        # Sphinx does not see these change: an old page would keep its old sidebar.
        for folder in ("book", ".doctrees", "html"):
            shutil.rmtree(BUILD / folder, ignore_errors=True)
    mirror(documents(), settings, BUILD / "book")


def preview(name):
    """Stage one page with the references it cites, and a table of contents that lists nothing else."""
    [page] = chosen([name])
    folder = BUILD / "preview" / page.stem
    mirror([page, BOOK / "references.md"], sorted((BOOK / "_ext").glob("*.py")), folder)
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: {page.stem}\nchapters:\n  - file: references\n")


def mirror(pages, settings, folder):
    around = circumstances()
    wanted = set()
    for path in [*pages, *settings, *BOOK.glob("*.bib"), *(BOOK / "_static").rglob("*")]:
        if path.is_dir():
            continue
        target = folder / path.relative_to(BOOK)
        wanted.add(target)
        if path.suffix == ".ipynb":
            write_atomically(target, nbformat.writes(with_outputs(path, around)))
        else:
            write_atomically(target, path.read_bytes())
    for path in folder.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()


def refresh(names):
    """Write the executed outputs, and the current setup cell, into the tracked notebooks."""
    around = circumstances()
    for path in chosen(names):
        notebook = with_outputs(path, around)
        for cell in notebook.cells:
            if has_tag(cell, "setup"):
                cell.source = setup_source(ROOT / "_config.yml")
        changed = write_atomically(path, nbformat.writes(notebook) + "\n")
        print(f"  {path.stem}: {'refreshed' if changed else 'unchanged'}, {path.stat().st_size / 1024:.0f} KiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["execute", "stage", "preview", "refresh"])
    parser.add_argument("names", nargs="*", help="notebooks, by name; all of the book's when left out")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks executed at once (2)")
    options = parser.parse_args()
    if options.command == "execute":
        return execute(options.names, options.jobs)
    if options.command == "refresh":
        return refresh(options.names)
    return preview(*options.names) if options.command == "preview" else stage()


if __name__ == "__main__":
    sys.exit(main())
