"""The kernel list of a user's server: every environment at once, by its name."""

from __future__ import annotations

import asyncio
import copy
import os
import sys
import time
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel
from traitlets import Bool, Dict, Float, List, TraitError, Unicode, default, validate

from kernels.cache import cache_file
from kernels.elsewhere import Taken, language_of, taken
from kernels.kernel_list import ListedKernel, Menu, Rules, default_name, menu, open_to, render
from kernels.kernelspec import Place
from kernels.listing import Listing
from kernels.messages import persons_language, say
from kernels.nearest import Candidate, Nearest, Wanted, nearest
from kernels.prefix import Environment, State
from kernels.registered import Registered, Registry
from kernels.registered import folder as registered_folder
from kernels.sources import DEFAULT_SOURCES, Source

# Seconds a listing may take of an event loop, and of a program that has nothing else to do.
_ON_LOOP = 0.1
_ALONE = 10.0
# Seconds for which one kernel of the list is taken as it is: a page asks for each one's logo.
_FRESH = 1.0


class MissingKernel(NoSuchKernel):
    """A kernel that is not there, and which one is nearest: ``sentence``."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(name)
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence


class CondaKernelSpecManager(KernelSpecManager):
    """Kernels of conda environments, found live, beside the kernelspecs on JUPYTER_PATH.

    Each listing looks at the disk, and reads again only what has changed. Where an
    environment's kernel is also on JUPYTER_PATH (the registry's plain kernelspec, for tools
    without this class), both have one name and the live one is used. An environment that
    cannot start is listed with its reason; its kernel explains what to do.
    """

    sources = List(
        Dict(per_key_traits={"id": Unicode(), "pattern": Unicode(), "label": Unicode()}),
        default_value=[vars(source) for source in DEFAULT_SOURCES],
        help="""Where environments are looked for, in order: ``id`` for kernel names,
        ``pattern`` as a glob of prefixes or ``@FILE`` with one prefix a line, ``label`` for
        people (none for the image's own). ``{1}`` in ``id`` and ``label`` is what the first
        component with a wildcard matched.

        Example::

            c.CondaKernelSpecManager.sources = [
                {"id": "image", "pattern": "/opt/conda/envs/*", "label": ""},
                {"id": "team-{1}", "pattern": "/teams/*/envs/*", "label": "team: {1}"},
            ]
        """,
    ).tag(config=True)

    hidden = List(
        Unicode(),
        help="""Globs of kernel names that are not shown, e.g. ``["conda-personal-base-*"]``.
        A notebook that names one cannot start it either.""",
    ).tag(config=True)

    renamed = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        help="""Display names by globs of kernel names; the first that fits is used. Fields:
        {environment}, {source}, {label}, {python}, {version}, {kernel}.

        Example::

            c.CondaKernelSpecManager.renamed = {
                "conda-team-vision-*": "Vision: {environment} (Python {python})",
            }
        """,
    ).tag(config=True)

    grouped = Bool(
        False,
        help="""Whether display names begin with their source (``team: vision: torch - Python
        3.11``), so that lists sorted by name show the kernels of one source together.""",
    ).tag(config=True)

    unusable = List(
        Unicode(),
        default_value=[state.value for state in State if state is not State.HEALTHY],
        help="""The states of environments that are listed though they cannot start; starting
        one explains in the notebook what to do. ``[]`` lists none of them.""",
    ).tag(config=True)

    cache_file = Unicode(
        help="""Where what was seen is kept for the person's next server; empty: nowhere."""
    ).tag(config=True)

    patience = Float(
        _ON_LOOP,
        min=0.0,
        help="""Seconds that a listing may wait for the disk in a server; after that it shows
        what is known.""",
    ).tag(config=True)

    language = Unicode(
        help="""The language of what is said of environments, ``en`` or ``zh_CN``; by default that
        of JupyterLab's menu, of the hub or of the locale, as the server starts."""
    ).tag(config=True)

    mirror = Unicode(
        help="""A folder on JUPYTER_PATH in which a server keeps the list as plain kernelspecs, for
        nbconvert, papermill and ``jupyter console``; empty: none. It has to be the person's own.

        Example::

            c.CondaKernelSpecManager.mirror = "/tmp/labcommons"
        """
    ).tag(config=True)

    chosen = Unicode(
        help="""The environment, ``name``, ``name:version`` or its prefix, whose kernel notebooks
        get that were made elsewhere (``python3``, ``conda-env-foo-py``, none); by default
        LABCOMMONS_CHOSEN (a prefix), else LABCOMMONS_ENVIRONMENT.
        """
    ).tag(config=True)

    registered = Bool(
        True,
        help="""Whether kernels are listed that the person registered in ~/.local/share/jupyter
        (``ipykernel install --user``, Julia, R, virtual environments). They run within the same
        limits; names that begin with ``conda-`` are environments' alone.""",
    ).tag(config=True)

    @default("chosen")
    def _environment_of_the_server(self) -> str:
        return os.environ.get("LABCOMMONS_CHOSEN") or os.environ.get("LABCOMMONS_ENVIRONMENT", "")

    @default("cache_file")
    def _persons_cache(self) -> str:
        return cache_file()

    @default("language")
    def _persons_language(self) -> str:
        return persons_language()

    @default("ensure_native_kernel")
    def _no_native_kernel(self) -> bool:
        # The server's own Python is not for people's work.
        return False

    @validate("renamed")
    def _templates_are_usable(self, proposal: Any) -> Any:
        for template in proposal["value"].values():
            try:
                render(template, Place("x", "x", "/x", "x"), "x")
            except ValueError as error:
                raise TraitError(f"CondaKernelSpecManager.renamed: {error}") from error
        return proposal["value"]

    @validate("unusable")
    def _states_are_known(self, proposal: Any) -> Any:
        known = [state.value for state in State]
        if unknown := sorted(set(proposal["value"]).difference(known)):
            raise TraitError(
                f"CondaKernelSpecManager.unusable: {', '.join(unknown)}; use {', '.join(known)}"
            )
        return proposal["value"]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.listing = Listing([Source(**source) for source in self.sources], self.cache_file)
        self.last_asked = self._looked = float("-inf")
        self._menu = Menu()
        self._registry = Registry(registered_folder())
        self._environments: list[Environment] | None = None
        self._models: dict[str, tuple[ListedKernel, dict[str, Any]]] = {}
        self._others: dict[str, tuple[Any, KernelSpec | None]] = {}
        self._said: set[tuple[str, str]] = set()

    # What Jupyter asks ----------------------------------------------------------------------

    def find_kernel_specs(self) -> dict[str, str]:
        """Kernel names and their resource folders."""
        return {name: each["resource_dir"] for name, each in self.get_all_specs().items()}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The kernelspec of a name. Raises NoSuchKernel, with the nearest that there is."""
        name = kernel_name.lower()
        if self.allowed_kernelspecs and name not in self.allowed_kernelspecs:
            raise NoSuchKernel(kernel_name)
        now = self._menu if self._is_fresh() and name in self._menu.entries else self.menu()
        if (entry := now.entries.get(name)) is None and name not in now.hidden:
            if (mine := self.registered_kernels().get(name)) is not None:
                document = copy.deepcopy(mine.document)
                return KernelSpec(name=name, resource_dir=mine.resource_dir, **document)
            folder = self._find_spec_directory(name)
            if folder is not None and (other := self._other(name, folder)) is not None:
                return other
            # Perhaps it was made a moment ago, and the disk is slow.
            now = self.menu(5 * self.patience)
            if (entry := now.entries.get(name)) is None:
                found = taken(name, "", now, [self.chosen])
                entry = found.kernel if found else None
        if entry is not None:
            # A copy: a kernel's manager may change its own.
            document = copy.deepcopy(entry.document)
            return KernelSpec(name=entry.name, resource_dir=entry.resource_dir, **document)
        raise MissingKernel(kernel_name, self._missing(kernel_name))

    def resolve(self, name: str, language: str = "", active: str = "") -> Taken | None:
        """The environments' kernel that is taken for a name which is not in the list.

        None where the name is in the list, or no kernel is the right one. ``language`` is the
        notebook's, where it says one; ``active`` is the prefix of the active environment.
        """
        now = self.menu()
        if name.lower() in now.entries or name.lower() in self.get_all_specs():
            return None
        return taken(name, language, now, [active, self.chosen])

    def _missing(self, name: str) -> str:
        """What to tell whoever asks for a kernel that is not here, and that none stands for."""
        wanted = Wanted(name, language_of(name) or "python")
        if near := self.nearest(wanted):
            return near.message(wanted).in_words(self.language)
        said = say("kernel_unknown_alone", name=name, language=wanted.language.capitalize())
        return said.in_words(self.language)

    def get_all_specs(self) -> dict[str, Any]:
        """Kernel names, with resource folder and kernelspec of each. Not to be changed."""
        self.last_asked = time.monotonic()
        now = self.menu()
        listed = {name: model for name, (_, model) in self._models.items()}
        for name, mine in self.registered_kernels().items():
            if name not in listed and name not in now.hidden:
                listed[name] = {"resource_dir": mine.resource_dir, "spec": mine.document}
        for name, folder in super().find_kernel_specs().items():
            if name in listed or name in now.hidden:
                continue
            if (spec := self._other(name, folder)) is not None:
                listed[name] = {"resource_dir": folder, "spec": spec.to_dict()}
        if self.allowed_kernelspecs:
            listed = {n: each for n, each in listed.items() if n in self.allowed_kernelspecs}
        return listed

    # What our own parts ask -----------------------------------------------------------------

    def menu(self, patience: float | None = None) -> Menu:
        """The environments' part of the list after a new look at the disk."""
        if patience is None:
            # An empty list is worth a wait, once.
            patience = self.patience if self.listing.serial else 10 * self.patience
        self.take(self.listing.environments(patience if _is_on_loop() else _ALONE))
        return self._menu

    def take(self, environments: list[Environment]) -> None:
        """Make the list of environments as they were found, where that is news."""
        self._looked = time.monotonic()
        if environments is self._environments and time.time() < self._menu.until:
            return
        self._environments = environments
        self._menu = menu(environments, self._rules(), time.time())
        self._models = self._modelled(self._menu.entries.values())
        self._say_problems(environments)

    def open_to_terminals(self) -> list[tuple[Environment, tuple[str, ...]]]:
        """What is not hidden, kernel or not, and what the list calls it, after a new look."""
        self.menu()
        found = self._environments or []
        titles = open_to(found, self._rules())
        return [(one, titles[one.place.prefix]) for one in found if one.place.prefix in titles]

    @property
    def entries(self) -> Mapping[str, ListedKernel]:
        """The environments' part of the list as it was last made, by name."""
        return self._menu.entries

    def registered_kernels(self) -> dict[str, Registered]:
        """Those that the person registered, by name; none where the site says so, or hides them."""
        if not self.registered:
            return {}
        found = self._registry.look(self.language)
        return {
            name: each
            for name, each in found.items()
            if not any(fnmatchcase(name, glob) for glob in self.hidden)
        }

    @property
    def listed(self) -> Menu:
        """The same with what else was said of it."""
        return self._menu

    def default_name(self, environment: str) -> str | None:
        """The kernel for new notebooks of who chose an environment; None where it has none."""
        return default_name(self._menu if self._is_fresh() else self.menu(), environment)

    def nearest(self, wanted: Wanted, besides: str = "") -> Nearest | None:
        """The kernel, besides one, nearest to one that is not there or cannot start.

        Reads folders of some environments.
        """
        return nearest(
            wanted,
            [
                Candidate(
                    entry.name,
                    entry.document["display_name"],
                    entry.document["language"],
                    entry.environment.place.python or "",
                    entry.environment.place.environment,
                    entry.environment.place.prefix,
                )
                for entry in self._menu.entries.values()
                if entry.is_healthy and entry.name != besides
            ],
        )

    # ----------------------------------------------------------------------------------------

    def _rules(self) -> Rules:
        return Rules(
            tuple(self.hidden),
            self.renamed,
            frozenset(map(State, self.unusable)),
            self.grouped,
            self.language,
        )

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._looked < _FRESH

    def _modelled(
        self, entries: Iterable[ListedKernel]
    ) -> dict[str, tuple[ListedKernel, dict[str, Any]]]:
        """What each entry is in a listing; those that have not changed are kept."""
        models: dict[str, tuple[ListedKernel, dict[str, Any]]] = {}
        base_url = getattr(self.parent, "base_url", None)
        for entry in entries:
            before = self._models.get(entry.name)
            if before is not None and before[0] == entry:
                models[entry.name] = before
                continue
            model = {"resource_dir": entry.resource_dir, "spec": entry.document}
            if isinstance(base_url, str):
                # With these two the server need not look for logos at each listing.
                url = f"{base_url.rstrip('/')}/kernelspecs/{entry.name}"
                model |= {"name": entry.name, "resources": _resources(entry.resource_dir, url)}
            models[entry.name] = (entry, model)
        return models

    def _other(self, name: str, folder: str) -> KernelSpec | None:
        """A kernelspec on JUPYTER_PATH, read again when its file changes; None if of no use."""
        mirrored = self.mirror and folder.startswith(self.mirror.rstrip("/") + "/")
        if mirrored or self._is_own(folder):  # the mirror shows this very list, a moment ago
            return None
        if folder.startswith(self._registry.root + os.sep):
            return None  # of a person's own only those that are checked
        try:
            seen = os.stat(os.path.join(folder, "kernel.json"))
            stamp = (seen.st_mtime_ns, seen.st_ino, seen.st_size)
        except OSError:
            return None
        before = self._others.get(folder)
        if before is None or before[0] != stamp:
            spec: KernelSpec | None = None
            try:
                spec = self._get_kernel_spec_by_name(name, folder)
            except NoSuchKernel:
                pass
            except Exception:
                self.log.warning("Kernelspec in %s cannot be used", folder, exc_info=True)
            before = self._others[folder] = (stamp, spec)
        spec = before[1]
        mark = spec.metadata.get("labcommons") if spec else None
        prefix = mark.get("prefix") if isinstance(mark, dict) else None
        if isinstance(prefix, str) and not os.path.exists(f"{prefix}/conda-meta"):
            return None  # the registry will follow in a moment
        return spec

    def _is_own(self, folder: str) -> bool:
        """Whether a kernelspec belongs to the server environment, which is never offered."""
        if self.ensure_native_kernel:
            return False
        return os.path.realpath(folder).startswith(os.path.realpath(sys.prefix) + os.sep)

    def _say_problems(self, environments: list[Environment]) -> None:
        """Log each problem once for as long as it is the same."""
        problems: set[tuple[str, str]] = set()
        for environment in environments:
            prefix = environment.place.prefix
            if environment.state is not State.HEALTHY:
                problems.add((prefix, str(environment.reason)))
            else:
                problems |= {(f"{prefix} ({own})", str(why)) for own, why in environment.problems}
        for where, why in sorted(problems - self._said):
            self.log.warning("Environment %s cannot be used: %s", where, why)
        self._said = problems


def _is_on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _resources(folder: str, url: str) -> dict[str, str]:
    """The files of a kernel that a browser may want, by the names that it knows them under."""
    try:
        names = os.listdir(folder) if folder else []
    except OSError:
        return {}
    resources = {name: f"{url}/{name}" for name in names if name in ("kernel.js", "kernel.css")}
    logos = sorted(name for name in names if name.startswith("logo-"))
    return resources | {os.path.splitext(name)[0]: f"{url}/{name}" for name in logos}
