"""The page of the service: which environments there are, and under which names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from jinja2 import Environment, select_autoescape

from hub_ext.i18n import gettext_for
from kernels.registry import RegisteredKernel

# Its own few rules, allowed by their hash in the Content-Security-Policy: no script, no assets.
STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
header p, small { color: GrayText; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: start; vertical-align: top; padding: .5rem .75rem; border-bottom: 1px solid
  color-mix(in srgb, CanvasText 20%, transparent); }
code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
aside { border-inline-start: .25rem solid #c60; padding: .5rem 1rem; }
"""

_TEMPLATE = """<!doctype html>
<html lang="{{ lang|replace('_', '-') }}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ _("Environments and kernels") }}</title>
<style>{{ style|safe }}</style>
</head>
<body>
<header>
<nav><a href="{{ hub }}">{{ _("Back to the hub") }}</a></nav>
<h1>{{ _("Environments and kernels") }}</h1>
<p>{{ _("Every environment is a kernel in the servers that are started with it.") }}</p>
</header>
<main>
{% if problems %}
<aside>
<h2>{{ _("Cannot be used") }}</h2>
<ul>{% for problem in problems %}<li>{{ problem }}</li>{% endfor %}</ul>
</aside>
{% endif %}
{% if environments %}
<table>
<thead><tr>
<th scope="col">{{ _("Environment") }}</th>
<th scope="col">{{ _("Version") }}</th>
<th scope="col">{{ _("Python") }}</th>
<th scope="col">{{ _("Kernels") }}</th>
</tr></thead>
<tbody>
{% for place, kernels in environments %}
<tr>
<th scope="row">{{ place.environment }}</th>
<td>{{ place.version }}</td>
<td>{{ place.python or "" }}</td>
<td>{% for kernel in kernels %}
<div>{{ kernel.display_name }}<br><small><code>{{ kernel.name }}</code></small></div>
{% endfor %}</td>
</tr>
{% endfor %}
</tbody>
</table>
{% else %}
<p>{{ _("No environment has been built yet.") }}</p>
{% endif %}
</main>
</body>
</html>
"""

_template = Environment(autoescape=select_autoescape(default=True)).from_string(_TEMPLATE)


def render(
    kernels: Sequence[RegisteredKernel], problems: Sequence[str], lang: str, hub: str
) -> str:
    """The page in a language. ``hub`` is the address of the hub's home page."""
    ordered = sorted(kernels, key=lambda kernel: (kernel.folders, kernel.name))
    environments = [
        (group[0].place, group)
        for _, found in groupby(ordered, key=lambda kernel: kernel.folders)
        if (group := list(found))
    ]
    return _template.render(
        _=gettext_for(lang),
        lang=lang,
        hub=hub,
        style=STYLE,
        environments=environments,
        problems=problems,
    )
