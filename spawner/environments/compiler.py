"""Compiles modules to bytecode; run by an environment's own Python, with nothing of ours.

``python -I -B compiler.py`` reads ``{"prefix": …, "sources": [paths below it]}`` and prints what
it wrote for each, as JSON. What does not compile is left alone, as some packages carry
templates. It exits with 28 (ENOSPC) when the disk is full.
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
    request = json.load(sys.stdin)
    os.chdir(request["prefix"])
    made = {}
    for source in request["sources"]:
        target = importlib.util.cache_from_source(source)
        try:
            # The path in it is relative: Python puts the source's own in its place as it loads it.
            py_compile.compile(source, target, source, doraise=True, invalidation_mode=_MODE)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                sys.exit(errno.ENOSPC)
        except Exception:  # noqa: S110  (whatever a template makes of the compiler)
            pass
        else:
            made[source] = target
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
