"""Compiles modules to bytecode; run by an environment's own Python, with nothing of ours.

``python -I -S -B compiler.py REQUEST`` reads ``{"prefix": …, "out": …, "hands": [[paths below the
prefix], …]}`` from a file, and writes each module's bytecode below ``out``, one process for each
hand. What does not compile is left alone, as some packages carry templates. It exits with 28
(ENOSPC) when the disk is full.
"""

import errno
import importlib.util
import json
import os
import py_compile
import sys

# Without times, as copies and layers change them, and nobody may change the sources (PEP 552).
_MODE = py_compile.PycInvalidationMode.UNCHECKED_HASH


def main() -> None:
    with open(sys.argv[1], "rb") as file:
        request = json.load(file)
    os.chdir(request["prefix"])
    children = []
    for hand in request["hands"]:
        child = os.fork()
        if not child:
            code = 1
            try:
                code = compile_all(hand, request["out"])
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.WEXITSTATUS(os.waitpid(child, 0)[1]) for child in children]
    sys.exit(errno.ENOSPC if errno.ENOSPC in codes else 0)


def compile_all(sources: "list[str]", out: str) -> int:
    for source in sources:
        target = os.path.join(out, importlib.util.cache_from_source(source))
        try:
            # The path in it is relative: Python puts the source's own in its place as it loads it.
            py_compile.compile(source, target, source, doraise=True, invalidation_mode=_MODE)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return errno.ENOSPC
        except Exception:  # noqa: S110  (whatever a template makes of the compiler)
            pass
    return 0


if __name__ == "__main__":
    main()
