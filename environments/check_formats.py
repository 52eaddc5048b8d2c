"""Results of ``labcommons env check`` for people and for the CI that asked: text, SARIF, JUnit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from commons.errors import in_terminal
from commons.version import version
from environments.checking import RULES, Problem, Result

_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
# No character of these may be in XML, also not escaped.
_NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ABOUT = {
    "spec": "environment.yml or labcommons.yml cannot be read or used",
    "names": "Names of environments are taken once, and fit",
    "lock": "A committed pixi.lock answers environment.yml",
    "policy": "The site's rules (environments.policy)",
    "advisories": "Known holes (environments.scan)",
    "signatures": "Signed statements beside environments",
}


def as_text(results: Sequence[Result]) -> str:
    """One line a problem, as compilers write them; in the language of the terminal."""
    lines = []
    for result in results:
        for one in result.problems:
            advice = f"; {in_terminal(one.advice)}" if one.advice else ""
            lines.append(
                f"{one.file}:{one.line}: {one.level}: {in_terminal(one.what)}{advice} "
                f"[{one.rule}/{one.code}]"
            )
    problems = [one for result in results for one in result.problems]
    errors = sum(one.level == "error" for one in problems)
    lines.append(f"{len(results)} environments: {errors} errors, {len(problems) - errors} warnings")
    return "\n".join(lines) + "\n"


def as_json(results: Sequence[Result]) -> str:
    """All of it."""
    return json.dumps([result.as_json() for result in results], indent=2) + "\n"


def as_sarif(results: Sequence[Result]) -> str:
    """SARIF 2.1.0, as GitHub's code scanning and others read it."""
    problems = [one for result in results for one in result.problems]
    driver = {
        "name": "labcommons env check",
        "version": version(),
        "rules": [{"id": rule, "shortDescription": {"text": _ABOUT[rule]}} for rule in RULES],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_sarif(one) for one in problems],
    }
    return json.dumps({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _sarif(one: Problem) -> dict[str, Any]:
    place = {"artifactLocation": {"uri": one.file}, "region": {"startLine": one.line}}
    return {
        "ruleId": one.rule,
        "ruleIndex": RULES.index(one.rule),
        "level": one.level,
        "message": {"text": _words(one)},
        "locations": [{"physicalLocation": place}],
        "properties": {"code": one.code},
    }


def as_junit(results: Sequence[Result]) -> str:
    """JUnit's XML: a suite for each environment, a case for each kind of thing looked at."""
    suites = ElementTree.Element("testsuites", name="labcommons env check")
    for result in results:
        suite = ElementTree.SubElement(suites, "testsuite", name=_xml(result.name))
        failures = 0
        for rule in RULES:
            case = ElementTree.SubElement(
                suite, "testcase", classname=_xml(result.name), name=rule, file=_xml(result.file)
            )
            of_rule = [one for one in result.problems if one.rule == rule]
            errors = [_line(one) for one in of_rule if one.level == "error"]
            if errors:
                failures += 1
                failure = ElementTree.SubElement(case, "failure", message=_xml(errors[0]))
                failure.text = _xml("\n".join(errors))
            if warnings := [_line(one) for one in of_rule if one.level == "warning"]:
                ElementTree.SubElement(case, "system-out").text = _xml("\n".join(warnings))
        suite.set("tests", str(len(RULES)))
        suite.set("failures", str(failures))
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, "unicode", xml_declaration=True) + "\n"


def _words(one: Problem) -> str:
    return f"{one.what}; {one.advice}" if one.advice else str(one.what)


def _line(one: Problem) -> str:
    return f"{one.file}:{one.line}: {_words(one)} [{one.code}]"


def _xml(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)


FORMATS: Mapping[str, Callable[[Sequence[Result]], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
    "junit": as_junit,
}
