"""Where pip looks in people's servers: at the site's own index, and never with a login of its."""

from __future__ import annotations

from commons.site import Environments
from commons.site.mirror import PYPI_INDEX
from spawner.server_mounts import indexes


def test_the_sites_index_is_the_servers() -> None:
    """Kind: sites that reach no index but their own."""
    settings = Environments(pip_index="https://mirror.lab/simple")
    found = indexes(settings, {})
    assert found == {
        "PIP_INDEX_URL": "https://mirror.lab/simple",
        "UV_DEFAULT_INDEX": "https://mirror.lab/simple",
    }


def test_the_sites_mirror_is_taken_without_a_certificate_and_with_patience() -> None:
    found = indexes(Environments(pip_index=PYPI_INDEX), {})
    assert found["PIP_INDEX_URL"] == "http://mirror:8000/pypi/simple"
    assert found["PIP_TRUSTED_HOST"] == "mirror"
    assert int(found["PIP_DEFAULT_TIMEOUT"]) > 60


def test_what_wants_a_login_stays_with_the_builds() -> None:
    settings = Environments.model_validate(
        {
            "pip_index": "https://pypi.lab/simple",
            "pip_extra_indexes": ["https://open.lab/simple"],
            "credentials": {"pypi.lab": {"token_file": "/run/labcommons/logins/x"}},
        }
    )
    assert indexes(settings, {}) == {
        "PIP_EXTRA_INDEX_URL": "https://open.lab/simple",
        "UV_INDEX": "https://open.lab/simple",
    }
    assert indexes(Environments(), {"PIP_INDEX_URL": "https://me:secret@pypi.lab2/simple"}) == {}
