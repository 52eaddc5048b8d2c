"""In every Python of the server: Matplotlib's fonts are mended (``labcommons_fonts``) on import.

Then an environment's own sitecustomize, if it has one. Every start of a Python reads this: it is
short, and imports nothing that is not there already. Python 3.8.
"""

import sys
from _frozen_importlib_external import PathFinder


class _Fonts:
    """Finds ``matplotlib.font_manager`` as Python does."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "matplotlib.font_manager":
            return None
        sys.meta_path.remove(_Fonts)
        spec = PathFinder.find_spec(name, path)
        run = getattr(spec and spec.loader, "exec_module", None)
        if run is not None:

            def exec_module(module):
                run(module)
                __import__("labcommons_fonts").mend(module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Fonts)
_here = __file__[: -len("/sitecustomize.py")]
_next = PathFinder.find_spec("sitecustomize", [place for place in sys.path if place != _here])
if _next is not None and _next.loader is not None:
    _next.loader.exec_module(sys.modules[__name__])
