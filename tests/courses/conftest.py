"""A site with two courses, and GPUs in its inventory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from commons.site import Site
from commons.store import Store
from commons.store.models import EnvironmentVersion, GpuDevice
from courses.document import CourseSpec, check_course

DOCUMENT = {
    "version": 1,
    "course": "ml101",
    "title": {"en": "Machine learning", "zh": "机器学习"},
    "timezone": "Europe/Berlin",
    "term": {"first": "2026-10-12", "last": "2027-02-05"},
    "sessions": [{"weekdays": ["tue"], "starts": "10:00", "duration": "2h"}],
    "days_off": ["2026-12-22", "2026-12-29"],
    "environment": "data:1",
    "size": "small",
    "gpus": {"each": 1, "type": "A100", "reserved": 2},
    "warm": {"before": "10m", "hold": "30m"},
    "granted": {"gpus": 2},
}


@pytest.fixture
def course() -> Callable[..., CourseSpec]:
    """A course with some keys changed; None takes one out."""

    def make(**changes: object) -> CourseSpec:
        return check_course({**DOCUMENT, **changes})

    return make


@pytest.fixture
def lab(site: Site) -> Site:
    """The small site, with the courses ml101 and art7."""
    people = {"instructors": ["teachers"], "students": ["students"]}
    directory = site.directory.model_dump() | {"courses": {"ml101": people, "art7": people}}
    return Site.model_validate(site.model_dump() | {"directory": directory})


def fill(session: Session, site: Site) -> None:
    """The site's GPUs, and one environment."""
    for device in site.gpus.devices:
        session.add(GpuDevice(id=device.id, model=device.model, memory=8 << 30, simulated=True))
    session.add(
        EnvironmentVersion(
            name="data",
            version="1",
            image="site/data:1",
            image_id="sha256:1",
            prefix="/opt/conda/envs/data",
            python="3.13.5",
            lock_digest="sha256:0",
            channels=["conda-forge"],
            words={"title": {"en": "Data"}},
            main_packages=[],
            packages=[],
            kernelspecs={},
        )
    )


@pytest.fixture
def filled(store: Store, lab: Site) -> Store:
    """The store, with what the site has."""
    store.transact(lambda session: fill(session, lab))
    return store
