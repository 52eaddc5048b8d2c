"""Jupyter's own programs in a terminal, with kernels by the names that notebooks have.

    python -I -m kernels.programs nbconvert --execute notebook.ipynb
    python -I -m kernels.programs meant NAME

nbconvert, ``jupyter execute``, ``run`` and ``console`` look for kernels in folders alone. Run by
this, they take for a name that is in none the kernel that it means, and end with one sentence
where there is none, in place of a traceback. ``meant`` is for those of people's environments.
"""

from __future__ import annotations

import json
import os
import re
import sys
from importlib.metadata import entry_points
from typing import NoReturn

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from kernels import cli, foreign_notebooks
from kernels.manager import MissingKernel
from kernels.messages import persons_language, say, why

PROGRAMS = ("console", "execute", "lab", "labextension", "nbconvert", "run")
# What these two are still asked for; all else is done here already, or by an environment.
_NO_PDF = re.compile(r"--to[ =](pdf|webpdf|qtpdf|qtpng)\b")
_INSTEAD = {
    "lab": (("--version", "--help", "-h"), say("lab_runs")),
    "labextension": (("list", "--version", "--help"), say("front_ends_come")),
}


def main() -> None:
    """Be the program that the first argument names."""
    if sys.argv[1:2] == ["meant"] and len(sys.argv) == 3:
        print(json.dumps(dict(zip(("name", "sentence"), answer(sys.argv[2]), strict=True))))
        return
    program = f"jupyter-{sys.argv[1]}" if len(sys.argv) > 1 else ""
    found = entry_points(group="console_scripts", name=program)
    if program.removeprefix("jupyter-") not in PROGRAMS or not found:
        sys.exit(f"usage: python -m kernels.programs {{{','.join(PROGRAMS)}}} …")
    sys.argv[:2] = [program]
    short = program.removeprefix("jupyter-")
    still, said = _INSTEAD.get(short, ((), None))
    if said and not {*still} & {*sys.argv}:
        end(said.in_words(persons_language()))
    if short == "nbconvert" and _NO_PDF.search(" ".join(sys.argv)):
        end(say("no_pdf").in_words(persons_language()))
    notebooks = [word for word in sys.argv if word.endswith(".ipynb")]
    if program == "jupyter-run" and notebooks:
        end(say("run_of_notebook", path=notebooks[0]).in_words(persons_language()))
    foreign_notebooks.take_as_they_are()
    _plain = KernelSpecManager.get_kernel_spec

    def get_kernel_spec(self: KernelSpecManager, kernel_name: str) -> KernelSpec:
        try:
            return _plain(self, kernel_name)
        except NoSuchKernel:
            return _plain(self, meant(kernel_name))

    # These programs make their kernel lists themselves, and cannot be told which.
    KernelSpecManager.get_kernel_spec = get_kernel_spec  # type: ignore[method-assign]
    try:
        sys.exit(next(iter(found)).load()())
    except FileNotFoundError as error:
        path = error.filename or ""
        end(say("file_not_read", path=path, error=why(error)).in_words(persons_language()))


def meant(name: str) -> str:
    """The name of the kernel that another name means; ends the program where none is meant."""
    now, sentence = answer(name)
    if sentence:
        end(sentence)
    print(f"{sys.argv[0]}: {name or '-'} -> {now}", file=sys.stderr)
    return now


def answer(name: str) -> tuple[str, str]:
    """The name of the kernel that another name means; empty, and why, where none is meant."""
    # Of ours, which asks the plain one for what is no environment's.
    kernels = cli.manager()
    try:
        taken = kernels.resolve(name, active=os.environ.get("CONDA_PREFIX", ""))
        return (taken.kernel.name if taken else kernels.get_kernel_spec(name).name), ""
    except MissingKernel as error:
        return "", str(error)


def end(sentence: str) -> NoReturn:
    """End the program with one sentence."""
    # Its words are wider than an old locale perhaps.
    sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(f"{sys.argv[0]}: {sentence}")


if __name__ == "__main__":
    main()
