"""For what stands before a package of an environment, on PYTHONPATH: becomes the real one.

Plain words of any Python, as it is imported by whatever one is there.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
PARTS = os.environ.get("LABCOMMONS_PARTS", "/opt/labcommons")  # another one in tests


def find(name):
    """Where an environment has its own; None where it has none."""
    from importlib.machinery import PathFinder

    places = [place for place in sys.path if os.path.abspath(place or ".") != HERE]
    found = PathFinder.find_spec(name, places)
    return found if found is not None and found.loader is not None else None


def become(name, found=None):
    """Have the environment's own module in the place of this one. Raises ImportError."""
    try:
        from importlib.util import module_from_spec
    except ImportError:  # Python 2
        before = sys.path[:]
        sys.path[:] = [place for place in before if os.path.abspath(place or ".") != HERE]
        del sys.modules[name]
        try:
            return __import__(name)
        finally:
            sys.path[:] = before
    found = found or find(name)
    if found is None:
        raise ImportError("No module named " + name)
    module = module_from_spec(found)
    sys.modules[name] = module
    found.loader.exec_module(module)
    return module
