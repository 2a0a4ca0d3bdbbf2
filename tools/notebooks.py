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
import json
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"
CELL_TIMEOUT = 1800
HEARTBEAT = 10
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET = "application/vnd.jupyter.widget-view+json"
KEPT_METADATA = ("tags", "mystnb")
SETUP = """# On Colab this installs the package; where b2g is at hand, it does nothing.
import importlib.util

if importlib.util.find_spec("b2g") is None:
    {install}"""
INSTALL = '%pip install -q "b2g @ {url}/archive/refs/heads/{branch}.zip"'
REFUSE = 'raise ModuleNotFoundError("b2g is not installed: make book, then use its .venv for this notebook.")'


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


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def has_tag(cell, tag):
    return tag in cell.metadata.get("tags", ())


def key_of(notebook, around):
    """Key of a notebook: its code cells, in order, and the circumstances `around`; not the setup cell."""
    sources = [cell.source for cell in code_cells(notebook) if not has_tag(cell, "setup")]
    return hashlib.sha256(json.dumps([around, sources]).encode()).hexdigest()


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

def normalised(notebook):
    """The notebook without times, machine names, widget views and other people's metadata."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({k: cell.metadata[k] for k in KEPT_METADATA if k in cell.metadata})
    for number, cell in enumerate(code_cells(notebook), 1):
        # A progress bar is of no use once the work is done, and its script would come from outside.
        cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
        cell.execution_count = number
        for out in cell.outputs:
            if "execution_count" in out:
                out.execution_count = number
    return notebook


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


def run_one(path, key):
    """Execute one notebook in the book's folder; returns the seconds, or raises with the failing cell."""
    import papermill

    started = time.monotonic()
    scratch = EXECUTED / f".{path.name}.{os.getpid()}.running.ipynb"
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        papermill.execute_notebook(path, scratch, cwd=path.parent, kernel_name="python3", progress_bar=False,
                                   execution_timeout=CELL_TIMEOUT, extra_arguments=["--log-level=ERROR"])
        copy = normalised(nbformat.read(scratch, as_version=4))
        copy.metadata["b2g_key"] = key
        write_atomically(EXECUTED / path.name, nbformat.writes(copy))
    except papermill.PapermillExecutionError as error:
        trace = "\n".join(error.traceback)
        raise RuntimeError(f"book/{path.name}, cell {error.cell_index + 1} of the file: "
                           f"{error.ename}: {error.evalue}\n\n{error.source}\n\n{trace}") from None
    finally:
        scratch.unlink(missing_ok=True)
    return time.monotonic() - started


# --- the commands -------------------------------------------------------------------------------------

def execute(names, jobs):
    """Run the notebooks that changed, `jobs` at a time, and say every few seconds what is running."""
    around = circumstances()
    paths = chosen(names)
    due = {path: key_of(nbformat.read(path, as_version=4), around)
           for path in paths if executed_copy(path, around) is None}
    print(f"notebooks: {len(paths) - len(due)} current, {len(due)} to run", flush=True)
    if not due:
        return 0
    failures, began, running = [], {}, {}
    queue = list(due.items())
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        while queue or running:
            while queue and len(running) < jobs:
                path, key = queue.pop(0)
                running[pool.submit(run_one, path, key)] = path
                began[path] = time.monotonic()
            done, _ = concurrent.futures.wait(running, HEARTBEAT, concurrent.futures.FIRST_COMPLETED)
            for future in done:
                path = running.pop(future)
                try:
                    print(f"  {path.stem}: done in {future.result():.0f} s", flush=True)
                except Exception as error:
                    failures.append(error)
                    print(f"  {path.stem}: FAILED", flush=True)
            if not done:
                now = time.monotonic()
                words = ", ".join(f"{path.stem} {now - began[path]:.0f} s" for path in running.values())
                print(f"  running: {words}; {len(queue)} waiting", flush=True)
    for error in failures:
        print(f"\n{error}", file=sys.stderr)
    return 1 if failures else 0


def with_outputs(path, around):
    """The notebook's own prose with the outputs of its executed copy."""
    copy = executed_copy(path, around)
    if copy is None:
        raise SystemExit(f"book/{path.name} has changed since it was executed; run: make book")
    notebook = normalised(nbformat.read(path, as_version=4))
    for cell, ran in zip(code_cells(notebook), code_cells(copy)):
        cell.outputs = ran.outputs
    return notebook


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
    """Stage one page alone, with a table of contents that lists nothing else."""
    [page] = chosen([name])
    folder = BUILD / "preview" / page.stem
    mirror([page], sorted((BOOK / "_ext").glob("*.py")), folder)
    (folder / "_toc.yml").write_text(f"format: jb-book\nroot: {page.stem}\n")


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


def setup_source():
    """The first cell of every notebook, made from the one public address in _config.yml."""
    repository = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]
    return SETUP.format(install=INSTALL.format(**repository) if repository["url"] else REFUSE)


def refresh(names):
    """Write the executed outputs, and the current setup cell, into the tracked notebooks."""
    around = circumstances()
    for path in chosen(names):
        notebook = with_outputs(path, around)
        for cell in notebook.cells:
            if has_tag(cell, "setup"):
                cell.source = setup_source()
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
