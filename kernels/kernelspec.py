"""Pure rules for kernelspecs: what a kernel.json may say, what a kernel is called, how it starts.

Nothing here touches the disk. A kernel.json is written by whoever owns the environment, so it
is checked before a word of it is used. The document's own rules are those of jupyter_client's
"Making kernels for Jupyter".
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kernels.hostile import NUMBERS, checked
from kernels.messages import ToldError, say

# The largest kernel.json that is read, in bytes; ipykernel's has 700.
MAX_BYTES = 64 * 1024
PROVISIONER = "labcommons-conda"

_MAX_ARGUMENTS = 64
_MAX_VARIABLES = 64
_MAX_TEXT = 4096
_MAX_LABEL = 200
_INTERRUPT_MODES = ("signal", "message")
# The name under which ipykernel's wheel and conda package install themselves.
_IPYKERNEL = "python3"


class SpecError(ToldError, ValueError):
    """A kernel.json that cannot be used; ``message`` is the reason, for people."""


@dataclass(frozen=True)
class CheckedSpec:
    """A kernel.json whose every field has the right type and whose program is in its prefix.

    ``argv[0]`` is absolute. ``env`` keeps the templates of kernel.json (``${NAME}``).
    """

    argv: tuple[str, ...]
    display_name: str
    language: str
    env: Mapping[str, str] = field(default_factory=dict)
    interrupt_mode: str = "signal"
    protocol: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """Where an environment is and what it is called: all that its kernels' names are made of.

    ``label`` tells people the source (``team: bio``); it is empty for the image's own ones.
    ``python`` is a version such as ``3.13.5``, or None where there is no Python. ``alone``: no
    other folder can give an environment of this source and name.
    """

    source: str
    label: str
    prefix: str
    environment: str
    version: str | None = None
    python: str | None = None
    alone: bool = True


def load_document(raw: bytes) -> object:
    """Parse the bytes of a kernel.json. Raises SpecError."""
    if len(raw) > MAX_BYTES:
        raise SpecError(say("kernel_json_large", most=MAX_BYTES // 1024))
    try:
        return checked(json.loads(raw.decode("utf-8"), **NUMBERS))
    except UnicodeDecodeError as error:
        raise SpecError(say("kernel_json_not_utf8")) from error
    except json.JSONDecodeError as error:
        raise SpecError(
            say(
                "kernel_json_wrong",
                line=error.lineno,
                column=error.colno,
            )
        ) from error
    except RecursionError as error:
        raise SpecError(say("kernel_json_deep")) from error
    except ValueError as error:  # NaN, or an integer with thousands of digits
        raise SpecError(say("kernel_json_unusable", error=error)) from error


def check_document(document: object, prefix: str, real_prefix: str | None = None) -> CheckedSpec:
    """Check a parsed kernel.json that was found in a prefix. Raises SpecError.

    ``real_prefix`` is where the prefix really is when it was reached through a symlink: its
    kernel.json may have been written with that path.
    """
    if not isinstance(document, Mapping):
        raise SpecError(say("kernel_json_no_object"))
    argv = _strings(document.get("argv"), "argv")
    if not argv:
        raise SpecError(say("argv_missing"))
    program = _program_inside(argv[0], prefix, real_prefix)
    interrupt = document.get("interrupt_mode", "signal")
    if interrupt not in _INTERRUPT_MODES:
        raise SpecError(say("interrupt_mode_wrong"))
    metadata = document.get("metadata", {})
    if not isinstance(metadata, Mapping):
        raise SpecError(say("metadata_no_object"))
    _check_depth(metadata, 16)
    return CheckedSpec(
        argv=(program, *argv[1:]),
        display_name=_text(document.get("display_name", ""), "display_name", _MAX_LABEL),
        language=_text(document.get("language", ""), "language", 64),
        env=_variables(document.get("env", {})),
        interrupt_mode=interrupt,
        protocol=_text(document.get("kernel_protocol_version", ""), "kernel_protocol_version", 16),
        # Who starts a kernel, and what is known of its environment, is ours to say.
        metadata={
            str(key): value
            for key, value in metadata.items()
            if key not in ("kernel_provisioner", "labcommons")
        },
    )


def _check_depth(value: object, left: int) -> None:
    """Refuse what parses and then breaks whoever writes it out again."""
    if left == 0:
        raise SpecError(say("metadata_deep"))
    children: Iterable[object] = ()
    if isinstance(value, Mapping):
        children = value.values()
    elif isinstance(value, list):
        children = value
    for child in children:
        _check_depth(child, left - 1)


def _strings(value: object, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SpecError(say("kernel_json_no_list", name=name))
    if len(value) > _MAX_ARGUMENTS:
        raise SpecError(say("kernel_json_items", name=name, most=_MAX_ARGUMENTS))
    return [_text(item, name, _MAX_TEXT) for item in value]


def _text(value: object, name: str, limit: int) -> str:
    if not isinstance(value, str):
        raise SpecError(say("kernel_json_no_text", name=name))
    if len(value) > limit:
        raise SpecError(say("kernel_json_long_text", name=name, most=limit))
    # A lone surrogate ("\ud800" in JSON) cannot be written to a file, a page or a process.
    if "\0" in value or not (value.isascii() or _is_encodable(value)):
        raise SpecError(say("kernel_json_character", name=name))
    return value


def _is_encodable(value: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _variables(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or len(value) > _MAX_VARIABLES:
        raise SpecError(
            say(
                "env_no_object",
                most=_MAX_VARIABLES,
            )
        )
    variables: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name):
            raise SpecError(say("env_name_wrong"))
        variables[name] = _text(text, f"env.{name}", _MAX_TEXT)
    return variables


def _program_inside(program: str, prefix: str, real_prefix: str | None) -> str:
    """The absolute path of argv[0]. A bare name means the prefix's own program.

    jupyter_client would replace a bare ``python`` by its own interpreter.
    """
    if not program:
        raise SpecError(say("argv_empty_program"))
    if "/" not in program:
        if program in (".", ".."):
            raise SpecError(
                say(
                    "argv_no_program",
                    program=repr(program),
                )
            )
        return f"{prefix}/bin/{program}"
    path = os.path.normpath(program)
    for root in (prefix, real_prefix):
        if root and os.path.isabs(program) and path.startswith(root.rstrip("/") + "/"):
            return path
    raise SpecError(
        say(
            "argv_outside",
            program=repr(program),
        )
    )


# Names ---------------------------------------------------------------------------------------


def kernel_names(kernels: Sequence[tuple[Place, str]]) -> list[str]:
    """The names of kernels, given as (place, the kernel's own name), in the same order.

    Each is ``kernel_name`` of its own, and all are different: should two of them be one name all
    the same (a crafted hash, one folder under two sources of a name), only the later gets another.
    """
    names: list[str] = []
    taken: set[str] = set()
    for place, own in kernels:
        name = kernel_name(place, own)
        if name in taken:
            digest = _digest(place, own)
            longer = (f"{_plain_name(place, own)}-{digest[:n]}" for n in range(20, 65))
            if (name := next((each for each in longer if each not in taken), "")) == "":
                raise ValueError("the same kernel was given twice")
        taken.add(name)
        names.append(name)
    return names


def kernel_name(place: Place, own_name: str) -> str:
    """The name of a kernel for ever: what else there is, or comes and goes, does not change it.

    ``conda-<source>-<env>-<kernel>`` in ``[a-z0-9._-]``, at most 128 characters. Where another
    kernel could have the same, now or later, it ends in a short hash of its path.
    """
    plain = _plain_name(place, own_name)
    return plain if _is_unmistakable(place, own_name) else f"{plain}-{_digest(place, own_name)[:8]}"


def earlier_names(place: Place, own_name: str) -> tuple[str, str]:
    """Other names that notebooks may have of a kernel: those of before its name was for ever."""
    plain = _plain_name(place, own_name)
    return plain, f"{plain}-{_digest(place, own_name)[:8]}"


def _is_unmistakable(place: Place, own_name: str) -> bool:
    """Whether the plain name can be read in one way only: nothing of it lost, and no doubt where
    source, environment and kernel begin."""
    if not place.alone:
        return False
    source, environment, own = _plain_parts(place, own_name)
    if (source, environment, own) != (place.source, place.environment, own_name):
        return False
    kind, _, group = source.partition("-")
    if kind in ("team", "course"):
        kind = group
    elif group:
        return False
    # What ends like a hash could be taken for one.
    return "-" not in kind + own and kind != "" and not re.fullmatch(r"[0-9a-f]{8,64}", own)


def _plain_parts(place: Place, own_name: str) -> tuple[str, str, str]:
    # 6 + 30 + 1 + 36 + 1 + 32 characters leave room for a hash within 128.
    return slug(place.source, 30), slug(place.environment, 36), slug(own_name, 32)


def _plain_name(place: Place, own_name: str) -> str:
    return "-".join(("conda", *_plain_parts(place, own_name)))


def slug(text: str, limit: int) -> str:
    """A text in ``[a-z0-9._-]``; never empty, never beginning with a dot or a dash."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:limit].strip("-.") or "x"


def _digest(place: Place, own_name: str) -> str:
    path = f"{place.prefix}\0{own_name}"
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()


def short_version(version: str | None) -> str | None:
    """``3.13.5`` -> ``3.13``; None where it does not begin with two numbers."""
    match = re.match(r"(\d{1,3})\.(\d{1,3})(?![0-9])", version or "")
    return f"{match[1]}.{match[2]}" if match else None


def display_name(place: Place, own_name: str, spec: CheckedSpec) -> str:
    """What people see: ``py313-data - Python 3.13``, ``vision (team: bio) - R 4.4``."""
    python = short_version(place.python)
    what = spec.display_name or own_name
    if own_name == _IPYKERNEL:
        what = f"Python {python}" if python else "Python"
    label = f" ({place.label})" if place.label else ""
    return _one_line(f"{place.environment}{label} - {what}")[:_MAX_LABEL]


def _one_line(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# Specs ---------------------------------------------------------------------------------------


def default_environment_name(prefix: str) -> str:
    """The value of CONDA_DEFAULT_ENV as conda gives it: a name below ``envs``, else the path."""
    parent, name = os.path.split(prefix.rstrip("/"))
    return name if os.path.basename(parent) == "envs" else prefix


def marker(place: Place) -> dict[str, str | None]:
    """What ``metadata.labcommons`` says of a kernel's environment; it also marks our files."""
    return {
        "source": place.source,
        "environment": place.environment,
        "version": place.version,
        "prefix": place.prefix,
    }


def plain_spec(place: Place, own_name: str, spec: CheckedSpec) -> dict[str, Any]:
    """The kernel.json that any Jupyter can start, without code of ours.

    The values of ``env`` pass through ``string.Template`` in jupyter_client, so a ``$`` of
    ours is doubled and one of the kernel's own stays a template, as its author meant it.
    """
    path = f"{_literal(place.prefix)}/bin:{spec.env.get('PATH', '${PATH}')}"
    env = {
        **spec.env,
        "CONDA_PREFIX": _literal(place.prefix),
        "CONDA_DEFAULT_ENV": _literal(default_environment_name(place.prefix)),
        "PATH": path,
    }
    return _document(place, own_name, spec, env)


def native_spec(place: Place, own_name: str, spec: CheckedSpec) -> dict[str, Any]:
    """The kernel.json for our own provisioner, which activates the environment itself."""
    document = _document(place, own_name, spec, dict(spec.env))
    document["metadata"]["kernel_provisioner"] = {"provisioner_name": PROVISIONER, "config": {}}
    return document


def _document(
    place: Place, own_name: str, spec: CheckedSpec, env: Mapping[str, str]
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "argv": list(spec.argv),
        "display_name": display_name(place, own_name, spec),
        "language": spec.language,
        "env": dict(env),
        "interrupt_mode": spec.interrupt_mode,
        "metadata": {**spec.metadata, "labcommons": marker(place)},
    }
    if spec.protocol:
        document["kernel_protocol_version"] = spec.protocol
    return document


def _literal(text: str) -> str:
    return text.replace("$", "$$")
