"""A version's bill of materials: CycloneDX, from conda's records and Python's distributions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from environments.inventory import Installed, inventory
from environments.packages import PipPackage


def of_prefix(
    prefix: Path, name: str, version: str, created: datetime, pip: Iterable[PipPackage] = ()
) -> str:
    """The bill of materials of a prefix as JSON (CycloneDX 1.6).

    Equal contents give equal text: ``created`` is its time, and its serial number follows
    from name and version. ``pip`` says the hashes of wheels, which a prefix does not know.
    A conda package that brings Python distributions lists them as components of its own, as
    scanners know holes by those names.
    """
    return of_packages(inventory(prefix), name, version, created, pip)


def of_packages(
    packages: Iterable[Installed],
    name: str,
    version: str,
    created: datetime,
    pip: Iterable[PipPackage] = (),
) -> str:
    """The bill of materials of packages, as ``of_prefix`` gives it."""
    wheels = {item.name: item for item in pip}
    root = Component(
        name=name, version=version, type=ComponentType.APPLICATION, bom_ref=f"{name}@{version}"
    )
    components: dict[str, Component] = {}
    for item in packages:
        made = _conda(item) if item.kind == "conda" else _pypi(item, wheels.get(item.name))
        components.setdefault(str(made.bom_ref.value), made)
        for part, part_version in item.distributions if item.kind == "conda" else ():
            inner = _named(part, part_version)
            components.setdefault(str(inner.bom_ref.value), inner)
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"labcommons:{name}:{version}"),
        metadata=BomMetaData(timestamp=created, component=root),
        components=components.values(),
    )
    bom.register_dependency(root, components.values())
    return JsonV1Dot6(bom).output_as_string(indent=1)


def _conda(item: Installed) -> Component:
    qualifiers = {
        key: value
        for key, value in (
            ("build", item.build),
            ("channel", item.channel.rpartition("/")[2]),
            ("subdir", item.subdir),
        )
        if value
    }
    purl = PackageURL("conda", None, item.name, item.version, qualifiers)
    return Component(
        name=item.name,
        version=item.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
        licenses=_licenses(item.license),
        hashes=[_sha256(item.sha256)] if item.sha256 else [],
        external_references=_reference(item.url),
    )


def _pypi(item: Installed, wheel: PipPackage | None) -> Component:
    component = _named(item.name, item.version)
    component.licenses.update(_licenses(item.license))
    if wheel:
        component.hashes.add(_sha256(wheel.sha256))
    component.external_references.update(_reference(wheel.url if wheel else item.url))
    component.properties.add(Property(name="labcommons:installer", value="pip"))
    return component


def _named(name: str, version: str) -> Component:
    purl = PackageURL("pypi", None, canonicalize_name(name), version)
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
    )


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _licenses(text: str) -> list[DisjunctiveLicense]:
    # conda's field is free text; as a name, it claims no more than that.
    return [DisjunctiveLicense(name=text[:200])] if re.search(r"\w", text) else []


def _reference(url: str) -> list[ExternalReference]:
    if not url.startswith(("http://", "https://")):
        return []
    return [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(url))]
