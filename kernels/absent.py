"""What programs that tutorials take for granted answer in a server that has not got them.

    python -I -m kernels.absent sudo apt install graphviz

Run under the programs' own names (config/images/server/command), and by bash for a command that it
does not find (conda.sh): whoever types one gets what takes its place, as one action.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kernels import packages
from kernels.messages import Message, say
from kernels.packages import GO_ON, make, offer, tell
from kernels.words import options

MISSING = 127  # exit status of a shell for a command that is not there
_INSTALLERS = ("apt", "apt-get", "aptitude", "yum", "dnf", "apk", "zypper", "brew", "snap")
_ROOTS = (*_INSTALLERS, "sudo", "su", "systemctl", "service")
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
# Programs by the package of conda that brings them, where that has another name.
_BROUGHT = {
    "nodejs": "node npm npx yarn pnpm",
    "r-base": "R Rscript",
    "c-compiler": "gcc cc",
    "cxx-compiler": "g++ c++",
    "fortran-compiler": "gfortran",
    "graphviz": "dot neato",
    "imagemagick": "convert magick",
    "openjdk": "java javac",
    "rust": "cargo rustc",
    "subversion": "svn",
    "mercurial": "hg",
    "openmpi": "mpirun mpiexec mpicc",
    "sqlite": "sqlite3",
    "postgresql": "psql",
    "p7zip": "7z 7za",
    "texlive-core": "pdflatex latex xelatex lualatex",
    "aria2": "aria2c",
    "google-cloud-sdk": "gcloud gsutil",
    "cuda-nvcc": "nvcc",
    "poppler": "pdftotext pdftoppm",
    "libgdal-core": "gdalinfo ogr2ogr",
    "blast": "blastn blastp",
}
_SAME = (
    "ffmpeg cmake ninja go ruby jq tree htop parallel gh git-lfs gdb valgrind clang pandoc julia "
    "maven gradle samtools bcftools bedtools bwa minimap2 fastqc snakemake nextflow sox octave "
    "gnuplot bc file lsof strace zsh fish emacs unrar rclone ncdu"
)
# Programs by the package of PyPI that brings them.
_OF_PIP = {
    "awscli": "aws",
    "huggingface_hub": "hf huggingface-cli",
    "torch": "torchrun",
    "sphinx": "sphinx-build",
}
_SAME_OF_PIP = (
    "tensorboard kaggle wandb gdown black ruff flake8 isort mypy pylint pytest gpustat nvitop dvc "
    "mlflow streamlit gradio accelerate papermill jupytext nbstripout cookiecutter pre-commit "
    "mkdocs flask uvicorn scrapy yt-dlp"
)
_CONDA = {name: package for package, names in _BROUGHT.items() for name in names.split()}
_CONDA |= {name: name for name in _SAME.split()}
_PIP = {name: package for package, names in _OF_PIP.items() for name in names.split()}
_PIP |= {name: name for name in _SAME_OF_PIP.split()}
# Debian's names of what has another one with conda.
_OF_DEBIAN = {
    "build-essential": "compilers",
    "gcc": "c-compiler",
    "g++": "cxx-compiler",
    "gfortran": "fortran-compiler",
    "default-jdk": "openjdk",
    "default-jre": "openjdk",
    "npm": "nodejs",
    "libgl1": "libgl",
    "libgl1-mesa-glx": "libgl",
    "libsndfile1": "libsndfile",
    "poppler-utils": "poppler",
    "openjdk-17-jdk": "openjdk",
}
# What another program, which is here, does as well.
_OTHERS = {
    "screen": "tmux",
    **dict.fromkeys(("ifconfig", "ip"), "hostname -I"),
    **dict.fromkeys(("nslookup", "dig", "host"), "getent hosts NAME"),
}
# What cannot be in a package: the sentence that says what takes its place.
_INSTEAD = {
    **dict.fromkeys(("docker", "podman", "singularity", "apptainer"), say("no_containers")),
    **dict.fromkeys(("module", "ml"), say("no_modules")),
    **dict.fromkeys(("sbatch", "srun", "salloc", "squeue", "sinfo", "scancel"), say("no_slurm")),
    **dict.fromkeys(("qsub", "qstat", "bsub", "bjobs"), say("no_slurm")),
    "nvidia-smi": say("no_gpu"),
    "quota": say("room"),
    **{name: say("other_program", name=name, command=other) for name, other in _OTHERS.items()},
    **dict.fromkeys(("jupyter-notebook", "jupyter-nbclassic"), say("lab_runs")),
    **dict.fromkeys(("jupyter-nbextension", "jupyter-serverextension"), say("front_ends_come")),
}
_PYTHON = re.compile(r"(?:python|pip)(\d+(?:\.\d+)*)")
# Options of virtualenv and uv that take a word after them; those of them that venv has, too.
_WITH_VALUE = frozenset(("-p", "--python", "--prompt", "--seeder", "--index-url", "--link-mode"))
_OF_VENV = frozenset(("--system-site-packages", "--clear", "--copies", "--upgrade", "--prompt"))
# Programs that install and run another one each: that is what is wanted.
_RUNNERS = {"uvx": [], "pipx": ["install", "run"], "uv tool": ["install", "run"]}


def answer(name: str, words: Sequence[str]) -> int:
    """Say what takes the place of a program; the exit status."""
    rest = [word for word in words if not word.startswith("-")]
    if name == "sudo" and rest and rest[0] in (*_INSTALLERS, "pip", "pip3", "conda", "mamba"):
        name, rest = rest[0], rest[1:]
        if name not in _INSTALLERS:
            tell(say("no_sudo", command=shlex.join([name, *rest])))
            return 1
    if name in _ROOTS:
        return _as_root(name, rest)
    if said := _said(name, rest):
        tell(said)
        return MISSING
    real = _real(name)
    if name == "uv" and rest[:1] == ["pip"]:
        return _uv_pip(list(words), real)
    if real:
        # These would install into whatever environment is active; so they have one a project.
        _become(real, words, without="CONDA_PREFIX" if name in ("poetry", "pdm") else "")
    if name == "virtualenv" or (name == "uv" and rest[:1] == ["venv"]):
        return _make_venv(name, words)
    if name in _CONDA:
        made = offer(_prefix(), add=[_CONDA[name]])
    else:
        made = offer(_prefix(), pip=[_PIP.get(name) or _wanted(name, rest)])
    make(made, say("program_missing", **made.told))
    return MISSING


def _said(name: str, rest: Sequence[str]) -> Message | None:
    """The sentence for what is in no package: other ways, other versions of Python."""
    if name == "pyenv" or _PYTHON.fullmatch(name):
        return _no_python(_version(shlex.join([name, *rest])))
    return _INSTEAD.get(name)


def _version(words: str) -> str:
    """The version of Python that words name; "" for none."""
    found = re.search(r"\d+(\.\d+)*", words)
    return found[0] if found else ""


def _no_python(version: str) -> Message:
    name = "py" + "".join(version.split(".")[:2])
    command = f"conda create -n {name} python={version or 3}"
    return say("python_missing", version=version, command=command)


def _make_venv(name: str, words: Sequence[str]) -> int:
    """``virtualenv`` and ``uv venv``, by Python's own venv."""
    wanted, given, plain = "", [], []
    for option, value in options(words, _WITH_VALUE):
        if not option:
            plain.append(value)
        elif option in ("-p", "--python"):
            wanted = value
        elif option in _OF_VENV:
            given += [option, value] if value else [option]
    folders = plain if name == "virtualenv" else plain[1:] or [".venv"]
    python = wanted if os.path.isabs(wanted) else _python()
    if python != wanted and (version := _version(wanted)):
        beside = f"{os.path.dirname(python)}/python{version}"
        python = beside if os.access(beside, os.X_OK) else shutil.which(f"python{version}") or ""
    if not python:
        tell(_no_python(_version(wanted)))
        return MISSING
    os.execvp(python, [python, "-m", "venv", *given, *folders])  # noqa: S606


def _python() -> str:
    """The active environment's Python; never that which runs JupyterLab."""
    found = shutil.which("python") or shutil.which("python3") or sys.executable
    chosen = f"/opt/conda/envs/{packages.started()[0]}/bin/python"
    ours = os.path.dirname(found) == os.path.dirname(sys.executable)
    return chosen if ours and os.access(chosen, os.X_OK) else found


def _as_root(name: str, rest: Sequence[str]) -> int:
    """What only root could do: installing has another way here, the rest has none."""
    wanted = rest[1:] if rest[:1] in (["install"], ["add"]) else []
    if name in _INSTALLERS and wanted and all(map(_PACKAGE.fullmatch, wanted)):
        return _of_the_system(wanted)
    if name in _INSTALLERS and rest[:1] in (["update"], ["upgrade"], ["clean"]):
        tell(say("nothing_to_do"))  # and what follows "&&" says what can be done
        return 0
    tell(say("no_root"))
    return 1


def _of_the_system(names: Sequence[str]) -> int:
    """``apt install``: what is here is said to be; the others conda has, most of them."""
    missing = [name for name in names if not _is_here(name)]
    if not missing:
        tell(say("here_already", packages=", ".join(names)))
        return 0
    wanted = [_OF_DEBIAN.get(name, name.removeprefix("python3-")) for name in missing]
    made = offer(_prefix(), add=wanted)
    make(made, say("no_root_packages", **made.told))
    return 1


def _is_here(name: str) -> bool:
    found = shutil.which({"python3-pip": "pip", "python3-venv": "python3"}.get(name, name))
    # What stands in for a program that is not there is none.
    return found is not None and (name.startswith("python3") or not _is_ours(found))


def _is_ours(path: str) -> bool:
    return os.path.realpath(path) == "/opt/labcommons/bin/command"


def _prefix() -> str:
    return os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX") or sys.prefix


def _wanted(name: str, rest: list[str]) -> str:
    """The package that a program is in; of one that runs others, the one that is to be run."""
    if name == "uv" and rest[:1] == ["tool"]:
        name, rest = "uv tool", rest[1:]
    verbs = _RUNNERS.get(name)
    if verbs and rest[:1] and rest[0] in verbs:
        rest = rest[1:]
    elif verbs != []:
        rest = []
    return rest[0] if rest and _PACKAGE.fullmatch(rest[0]) else name.split()[0].replace("uvx", "uv")


def _real(name: str) -> str:
    """The active environment's own program, which one of ours stands before; "" for none."""
    prefix = os.environ.get("CONDA_PREFIX")
    path = f"{prefix}/bin/{name}"
    return path if prefix and os.access(path, os.X_OK) else ""


def _become(program: str, words: Sequence[str], without: str = "") -> NoReturn:
    env = {key: value for key, value in os.environ.items() if key != without}
    os.execve(program, [program, *words], env)  # noqa: S606


def _uv_pip(words: list[str], real: str) -> int:
    """``uv pip``, where there is no uv by pip: they differ in speed alone.

    Where the active environment is not the person's, a ``.venv`` here is meant, if there is one.
    """
    after = words[words.index("pip") + 1 :]
    prefix = _prefix()
    if not packages.is_own(prefix) and (venv := _venv()):
        if real:
            _become(real, words, without="CONDA_PREFIX")
        prefix = venv
    asked = ["install", "-r", *after[1:]] if after[:1] == ["sync"] else after
    asked = [word for word in asked if word != "--system"]
    code = GO_ON
    if asked[:1] in (["install"], ["uninstall"]) and "-p" not in words:
        code = packages.pip(prefix, asked)
    if code != GO_ON:
        return code
    if real:
        _become(real, words)
    pip = f"{prefix}/bin/pip" if prefix == _venv() else "pip"
    os.execvp(pip, [pip, *asked])  # noqa: S606


def _venv() -> str:
    """The ``.venv`` of this folder or one above it; "" for none."""
    here = Path.cwd()
    found = (folder / ".venv" for folder in (here, *here.parents))
    return str(next((venv for venv in found if (venv / "pyvenv.cfg").is_file()), ""))


def not_found(name: str, words: Sequence[str]) -> int:
    """What bash says of a command that is not there; what has another way here says that."""
    known = (*_CONDA, *_PIP, *_INSTEAD, *_ROOTS, "uvx", "pyenv")
    if name in known or _PYTHON.fullmatch(name):
        return answer(name, words)
    print(f"bash: {name}: command not found", file=sys.stderr)
    return MISSING


def main(words: Sequence[str]) -> int:
    """``NAME WORDS…``; ``--not-found`` first by bash."""
    if words[:1] == ["--not-found"]:
        return not_found(words[1], words[2:])
    return answer(words[0], words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
