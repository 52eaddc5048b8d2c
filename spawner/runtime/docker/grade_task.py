"""What the containers of autograding do, with the nbgrader of a course's environment.

``python -I -c THIS WORDS`` with the words as one JSON object; the answer is JSON, a line each.
Three steps, and nothing of the first and third is in the second one's sight. ``prepare`` makes of
what was handed in the notebooks that are run: each cell that the instructors locked is theirs
again. ``run`` runs these, and nothing else: a student's code is in that step alone, and the first
process, which tells what came of each cell, cannot be looked into from within. ``mark`` takes
the cells of ``prepare`` and no more than the outputs of ``run``; a test that was not run to its end
has failed. nbgrader is imported where it is needed: the agent, which has none, reads this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import stat
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STAFF, HANDED = Path("/staff"), Path("/handed")  # of prepare, to read
RUN, BOOK = Path("/given/run"), Path("/given/book")  # what it writes: for run, for mark
RAN, OUT = Path("/given/ran"), Path("/out")  # of mark: what was run, and feedback
WORK = Path("/tmp/work")  # noqa: S108  (the container's)
TREE, DATABASE, OUTPUTS = "tree.tar", "gradebook.db", "outputs"
MOST_NOTEBOOKS = 20
MOST_NOTEBOOK = 16 * 2**20  # bytes of one that is handed in
MOST_OUTPUT = 4 * 2**20  # bytes of what one notebook's cells print
MOST_TEXT, MOST_PICTURE, MOST_OUTPUTS = 20_000, 2**20, 100  # of one output; outputs of a cell
MOST_FEEDBACK = 32 * 2**20  # bytes of one page
PICTURES = ("image/png", "image/jpeg")
STUDENT = "student"
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
_SHUT = 4  # PR_SET_DUMPABLE


class CannotError(Exception):
    """It cannot be graded; ``why`` is one of ``spec.GradeFailure``."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(why)
        self.why, self.detail = why, detail[:300]


# -- prepare: no student's code -------------------------------------------------------------------


def prepare(
    words: dict[str, Any],
    staff: Path = STAFF,
    handed: Path = HANDED,
    run: Path = RUN,
    book: Path = BOOK,
) -> dict[str, Any]:
    """The notebooks that are run, as a tar with what is beside them. Raises CannotError."""
    handin = str(words["handin"])
    theirs = dict(_files(staff / "source" / handin))
    names = sorted(path for path in theirs if path.endswith(".ipynb") and "/" not in path)
    if not names:
        raise CannotError("source", handin)
    if len(names) > MOST_NOTEBOOKS:
        raise CannotError("many", str(MOST_NOTEBOOKS))
    _nbgrader()
    said: dict[str, str] = {}
    for name in names:
        _learn(name, theirs[name], handin, book)
    given = dict(_files(handed))
    tree = {path: file for path, file in given.items() if path not in names}
    tree |= {path: file for path, file in theirs.items() if not path.endswith(".ipynb")}
    for name in names:
        if name not in given:
            said[name] = "missing"
            continue
        try:
            tree[name] = _overwritten(name, given[name], theirs[name], handin, book)
        except Exception as error:  # whatever a student's notebook does to nbgrader
            said[name] = f"invalid: {error}"[:300]
    with tarfile.open(run / TREE, "w") as archive:
        for path in sorted(tree):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = tree[path].stat().st_size, 0o644
            with tree[path].open("rb") as file:
                archive.addfile(entry, file)
    (book / "said.json").write_text(json.dumps({"names": names, "said": said}))
    return {"notebooks": len(names), "run": len(names) - len(said)}


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Plain files by their paths within, and nothing through a link."""
    if folder.is_symlink() or folder.parent.is_symlink():
        return
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield str(path.relative_to(folder)), path


def _nbgrader() -> None:
    """Raises CannotError where the environment has none. It calls a program by its bare name."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    try:
        import nbgrader  # noqa: F401
    except ImportError as error:
        raise CannotError("nbgrader") from error


def _read(path: Path) -> Any:
    import nbformat

    if path.stat().st_size > MOST_NOTEBOOK:
        raise ValueError("the notebook is too large")
    return nbformat.read(path, as_version=4)


def _resources(name: str, handin: str, book: Path, folder: Path) -> dict[str, Any]:
    return {
        "nbgrader": {
            "notebook": name.removesuffix(".ipynb"),
            "assignment": handin,
            "student": STUDENT,
            "db_url": f"sqlite:///{book / DATABASE}",
        },
        "metadata": {"path": str(folder), "name": name.removesuffix(".ipynb")},
        "unique_key": name.removesuffix(".ipynb"),
    }


def _through(names: str, nb: Any, resources: dict[str, Any]) -> Any:
    """A notebook after nbgrader's preprocessors of these names."""
    from nbgrader import preprocessors

    for name in names.split():
        nb, resources = getattr(preprocessors, name)().preprocess(nb, resources)
    return nb


def _learn(name: str, path: Path, handin: str, book: Path) -> None:
    """Write down which cells are the instructors', and what they count. Raises CannotError."""
    from nbgrader.api import Gradebook

    resources = _resources(name, handin, book, path.parent)
    try:
        with Gradebook(resources["nbgrader"]["db_url"]) as gradebook:
            gradebook.update_or_create_assignment(handin)
        nb = _through(
            "IncludeHeaderFooter LockCells ClearSolutions ClearOutput CheckCellMetadata "
            "ComputeChecksums SaveCells",
            _instantiated(_read(path), resources),
            resources,
        )
    except Exception as error:
        raise CannotError("source", f"{name}: {error}") from error
    (book / f"{name}.source").write_text(json.dumps(nb))


def _instantiated(nb: Any, resources: dict[str, Any]) -> Any:
    """With the tests that nbgrader makes from a tests.yml, where the notebook asks for them."""
    if not any("AUTOTEST" in cell.source for cell in nb.cells):
        return nb
    return _through("InstantiateTests", nb, resources)


def _overwritten(name: str, path: Path, source: Path, handin: str, book: Path) -> Path:
    """A student's notebook in which all that the instructors locked is theirs; where it is.

    Of the student's are texts of cells, and which cell of the instructors' each one is. Of two that
    say the same the first one counts.
    """
    import nbformat

    mine = json.loads((book / f"{name}.source").read_text())
    metadata = {
        cell["metadata"]["nbgrader"]["grade_id"]: cell["metadata"]
        for cell in mine["cells"]
        if cell["metadata"].get("nbgrader", {}).get("grade_id")
    }
    cells = []
    for cell in _read(path).cells:
        told = dict(cell.metadata.get("nbgrader") or {}).get("grade_id")
        more: dict[str, Any] = (
            {"outputs": [], "execution_count": None} if cell.cell_type == "code" else {}
        )
        known = metadata.pop(told, {}) if isinstance(told, str) else {}
        made = {"cell_type": str(cell.cell_type), "source": str(cell.source), "metadata": known}
        cells.append({**made, **more})
    plain = {"nbformat": 4, "nbformat_minor": 4, "metadata": mine["metadata"], "cells": cells}
    nb = nbformat.from_dict(plain)
    nbformat.validate(nb)
    resources = _resources(name, handin, book, source.parent)
    nb = _through("OverwriteCells CheckCellMetadata", nb, resources)
    made_at = book / name
    made_at.write_text(json.dumps(nb))
    return made_at


# -- run: a student's code, and nothing that it could want ----------------------------------------


def run(words: dict[str, Any], given: Path = RUN, work: Path = WORK) -> Iterator[dict[str, Any]]:
    """What came of each notebook's cells, one notebook after the other. Raises CannotError."""
    import nbformat

    work.mkdir(mode=0o700)
    try:
        with tarfile.open(given / TREE) as archive:
            archive.extractall(work)  # noqa: S202  (prepare has made it)
    except OSError as error:
        raise CannotError("size", error.strerror or "") from error
    names = sorted(path.name for path in work.glob("*.ipynb"))
    until = time.monotonic() + float(words["seconds"])
    for number, name in enumerate(names):
        share = max(1.0, (until - time.monotonic()) / (len(names) - number))
        nb = nbformat.read(work / name, as_version=4)
        problem, done = execute(nb, work, time.monotonic() + share)
        left, told = MOST_OUTPUT, {}
        for index in sorted(done):
            outputs = limited(nb.cells[index].get("outputs") or ())
            size = len(json.dumps(outputs))
            if size > left:
                outputs, size = [one for one in outputs if one["output_type"] == "error"], 0
            left -= size
            told[str(index)] = outputs
        yield {"notebook": name, "cells": told, "problem": problem}


def execute(nb: Any, folder: Path, until: float) -> tuple[str, set[int]]:
    """Run a notebook; what was in the way, and the cells that came to an end."""
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    done: set[int] = set()

    class Client(NotebookClient):  # type: ignore[misc]
        room = 2 * MOST_OUTPUT

        def output(self, outs: Any, msg: Any, display_id: Any, cell_index: int) -> Any:
            """No more than there is room for: what runs may print for ever."""
            self.room -= len(str(msg["content"]))
            if self.room < 0 and msg["msg_type"] != "error":
                return None
            return super().output(outs, msg, display_id, cell_index)

    def ended(cell: Any, cell_index: int, execute_reply: Any) -> None:
        """What the kernel answers counts, too, where it has printed no error."""
        said = execute_reply["content"]
        if said.get("status") != "ok":
            there = cell.setdefault("outputs", [])
            if not any(one.get("output_type") == "error" for one in there):
                there.append(failure(str(said.get("ename") or "Error"), str(said.get("evalue"))))
        done.add(cell_index)

    language = nb.metadata.get("kernelspec", {}).get("language") or "python"
    asked = nb.metadata.get("kernelspec", {}).get("name", "")
    found = KernelSpecManager().get_all_specs()
    alike = [n for n, one in found.items() if one["spec"].get("language") == language]
    kernel = asked if asked in found else next(iter(sorted(alike)), "")
    if not kernel:
        return f"kernel: {language}"[:100], done
    client = Client(
        nb,
        kernel_name=kernel,
        resources={"metadata": {"path": str(folder)}},
        timeout_func=lambda cell: max(1, int(until - time.monotonic())),
        startup_timeout=120,
        allow_errors=True,
        store_widget_state=False,
        record_timing=False,
        skip_cells_with_tag="",
        on_cell_executed=ended,
    )
    try:
        client.execute()
    except CellTimeoutError:
        return "time", done
    except DeadKernelError:
        return "died", done
    except Exception as error:  # whatever a kernel says that is none any more
        return f"failed: {type(error).__name__}"[:100], done
    return "", done


def failure(name: str, value: str) -> dict[str, Any]:
    """An output that says that a cell has failed."""
    return {
        "output_type": "error",
        "ename": name[:200],
        "evalue": value[:2000],
        "traceback": [f"{name}: {value}"[:2000]],
    }


def limited(outputs: Any) -> list[dict[str, Any]]:
    """Outputs, of any shape, as those that are shown: texts and pictures, and not too many.

    That a cell has failed, or printed to stderr, is never lost: nbgrader goes by it.
    """
    found: list[dict[str, Any]] = []
    for one in outputs:
        if not isinstance(one, dict):
            continue
        kind, counts = one.get("output_type"), False
        made: dict[str, Any] | None = None
        if kind == "error":
            counts = True
            lines = one.get("traceback")
            made = failure(str(one.get("ename")), str(one.get("evalue")))
            if isinstance(lines, list):
                made["traceback"] = [str(line)[:2000] for line in lines[:60]]
        elif kind == "stream":
            name = "stderr" if one.get("name") == "stderr" else "stdout"
            counts = name == "stderr"
            made = {"output_type": "stream", "name": name, "text": _text(one.get("text"))}
        elif kind in ("execute_result", "display_data"):
            data = one.get("data")
            data = _shown(data if isinstance(data, dict) else {})
            if data or kind == "execute_result":
                made = {"output_type": kind, "data": data, "metadata": {}}
                counts = kind == "execute_result"
            if made and kind == "execute_result":
                made["execution_count"] = None
        if made and (len(found) < MOST_OUTPUTS or (counts and len(found) < 2 * MOST_OUTPUTS)):
            found.append(made)
    return found


def _text(value: Any) -> str:
    text = "".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + "\n[…]"


def _shown(data: dict[str, Any]) -> dict[str, str]:
    found = {}
    if "text/plain" in data:
        found["text/plain"] = _text(data["text/plain"])
    for kind in PICTURES:
        picture = data.get(kind)
        if not isinstance(picture, str) or len(picture) > MOST_PICTURE:
            continue
        if _BASE64.fullmatch(picture):
            found[kind] = picture
    return found


# -- mark: no student's code ----------------------------------------------------------------------


def mark(
    words: dict[str, Any], book: Path = BOOK, ran: Path = RAN, out: Path = OUT, work: Path = WORK
) -> dict[str, Any]:
    """Marks, and a page of feedback for each notebook, as a snapshot. Raises CannotError."""
    _nbgrader()
    from nbgrader.api import Gradebook

    work.mkdir(mode=0o700)
    noted = json.loads((book / "said.json").read_text())
    for path in book.iterdir():
        shutil.copy(path, work)
    handin, told = str(words["handin"]), _told(ran / OUTPUTS)
    with Gradebook(f"sqlite:///{work / DATABASE}") as gradebook:
        gradebook.update_or_create_student(STUDENT)
        gradebook.update_or_create_submission(handin, STUDENT)
    pages: dict[str, bytes] = {}
    found = []
    for name in noted["names"]:
        problem = str(noted["said"].get(name, ""))
        resources = _resources(name, handin, work, work)
        if not problem:
            outputs, problem = told.get(name, ({}, "died"))
            try:
                nb = _with_outputs(_read(work / name), outputs)
                nb = _through("SaveAutoGrades", nb, resources)
                pages[name.removesuffix(".ipynb") + ".html"] = _page(nb, resources)
            except Exception as error:  # more points than there are, for instance
                problem = f"invalid: {error}"
                _nothing(resources)
        else:
            _nothing(resources)
        found.append({"name": name, **_scores(resources), "problem": problem[:300]})
    digest, size = _lay(pages, out)
    return {"notebooks": found, "digest": digest, "files": len(pages), "bytes": size}


def _told(path: Path) -> dict[str, tuple[dict[int, Any], str]]:
    """What ``run`` said, which may be anything, by notebook."""
    found: dict[str, tuple[dict[int, Any], str]] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            said = json.loads(line)
            cells = {int(index): limited(one) for index, one in said["cells"].items()}
            found.setdefault(str(said["notebook"]), (cells, str(said["problem"])[:100]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            continue
    return found


def _with_outputs(nb: Any, outputs: dict[int, Any]) -> Any:
    import nbformat

    for index, cell in enumerate(nb.cells):
        if cell.cell_type == "code":
            missing = bool(cell.source.strip()) and index not in outputs
            made = [failure("NotRun", "This cell was not run to its end.")] if missing else []
            cell.outputs = [nbformat.from_dict(one) for one in outputs.get(index, made)]
            cell.execution_count = None
    return nb


def _notebook(resources: dict[str, Any]) -> tuple[Any, Any]:
    from nbgrader.api import Gradebook

    asked = resources["nbgrader"]
    gradebook = Gradebook(asked["db_url"])
    row = gradebook.find_submission_notebook(asked["notebook"], asked["assignment"], STUDENT)
    return gradebook, row


def _nothing(resources: dict[str, Any]) -> None:
    """Of what was not handed in, or cannot be read: no points, and nothing to look through."""
    gradebook, row = _notebook(resources)
    with gradebook:
        for grade in row.grades:
            grade.auto_score, grade.needs_manual_grade = 0, False
        gradebook.db.commit()


def _scores(resources: dict[str, Any]) -> dict[str, Any]:
    """Points of the tests, of all points there are; a test that is not there has none."""
    gradebook, row = _notebook(resources)
    with gradebook:
        score = most = 0.0
        manual = False
        for grade in row.grades:
            full = max(0.0, float(grade.max_score or 0))
            most += full
            manual = manual or bool(grade.needs_manual_grade)
            score += min(max(0.0, float(grade.auto_score or 0)), full)
        return {"score": score, "most": most, "manual": manual}


def _page(nb: Any, resources: dict[str, Any]) -> bytes:
    """The notebook with its points, in nbgrader's form, in which nothing of a student's runs."""
    from nbconvert.exporters import HTMLExporter
    from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
    from nbconvert.preprocessors.sanitize import SanitizeHTML
    from nbgrader.converters import GenerateFeedback
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import GetGrades

    config = GenerateFeedback(coursedir=CourseDirectory()).config
    nb, resources = SanitizeHTML().preprocess(nb, resources)  # the template takes HTML as it is
    exporter = HTMLExporter(config=config)
    exporter.register_preprocessor(GetGrades(), enabled=True)
    exporter.register_preprocessor(CSSHTMLHeaderPreprocessor(), enabled=True)
    body, _ = exporter.from_notebook_node(nb, resources)
    raw = str(body).encode()
    return raw if len(raw) <= MOST_FEEDBACK else b"<!doctype html><title>Too large</title>"


def _lay(pages: dict[str, bytes], out: Path) -> tuple[str, int]:
    """As ``snapshot`` has what was read: a manifest, and all contents in one file."""
    files = [
        {"path": path, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for path, data in sorted(pages.items())
    ]
    (out / "data").write_bytes(b"".join(data for _, data in sorted(pages.items())))
    plain = {"version": 1, "files": files, "folders": [], "left_out": []}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")
    (out / "manifest.json").write_bytes(text)
    return hashlib.sha256(text).hexdigest(), sum(map(len, pages.values()))


# -- the container's first process ----------------------------------------------------------------


def _mouth() -> Callable[[dict[str, Any]], None]:
    """Where this process speaks, and what it starts does not; nor can that look into it."""
    import ctypes

    if ctypes.CDLL(None).prctl(_SHUT, 0, 0, 0, 0):
        raise OSError("prctl")
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    mine = os.dup(1)  # closed in whatever is executed (PEP 446)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)

    def say(said: dict[str, Any]) -> None:
        raw = json.dumps(said).encode() + b"\n"
        while raw:
            raw = raw[os.write(mine, raw) :]

    return say


def main() -> int:
    """Do one step, and say what came of it."""
    words = json.loads(sys.argv[-1])
    os.umask(0o022)
    say = _mouth()
    try:
        if words["do"] == "run":
            for said in run(words):
                say(said)
        else:
            say({"prepare": prepare, "mark": mark}[words["do"]](words))
    except CannotError as error:
        say({"failure": error.why, "detail": error.detail})
    except Exception as error:  # what is in the way is told, wherever it comes from
        say({"failure": "failed", "detail": f"{type(error).__name__}: {error}"[:300]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
