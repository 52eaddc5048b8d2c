"""What the files of an environment are called, in its folder and in a built version."""

from __future__ import annotations

SPEC_FILE = "environment.yml"
WORDS_FILE = "labcommons.yml"
LOCK_FILE = "pixi.lock"
STAMP_FILE = "version.json"
SBOM_FILE = "sbom.cdx.json"
# In a prefix: what it says of itself and was made from.
FOLDER = "conda-meta/labcommons"
# The only one in a lock of ours.
DEFAULT_ENVIRONMENT = "default"
# In a package cache.
BYTECODE = "bytecode"
# In one, another one, which nobody else may read.
PRIVATE = "private"
# Beside what a version was made from: it in the formats of others.
EXPORTS = "exports"
# Format -> the file's usual name.
FILE_NAMES = {
    "environment.yml": "environment.yml",
    "explicit": "explicit.txt",
    "conda-lock": "conda-lock.yml",
    "pixi.lock": "pixi.lock",
    "requirements": "requirements.txt",
    "dockerfile": "Dockerfile",
}
# Languages, by their package, and the package with their kernel.
KERNELS = {"python": "ipykernel", "r-base": "r-irkernel", "octave": "octave_kernel"}
KERNEL_PACKAGES = frozenset(KERNELS.values())
