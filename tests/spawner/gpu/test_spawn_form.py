"""The spawn form as the hub asks the spawner for it: the store's state, in the person's words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jupyterhub import orm
from jupyterhub.objects import Hub
from jupyterhub.user import User

from commons.site import Site
from commons.store import EnvironmentVersion, Store
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.batches import run_pass
from spawner.gpu.quotas import quota_store
from spawner.gpu.watch.monitor import refresh
from spawner.resources import Resources
from spawner.runtime.memory import MemoryRuntime
from spawner.spawner import LabSpawner


@pytest.fixture
async def form(store: Store, site: Site, tmp_path: Path) -> AsyncIterator[Any]:
    """Asks for alice's form; nothing here needs an Engine."""
    await refresh(store, site.gpus, MemoryRuntime())
    row = EnvironmentVersion(
        name="data",
        version="1",
        image="labcommons/env-data:1",
        image_id="sha256:1",
        prefix="/opt/conda/envs/data",
        lock_digest="sha256:0",
        channels=[],
        words={"title": "Data"},
        main_packages=[],
        packages=[],
        kernelspecs={},
    )
    store.transact(lambda s: s.add(row))
    LabSpawner.shared = Resources(site, store, MemoryRuntime(), tmp_path)
    db = orm.new_session_factory("sqlite:///:memory:")()
    user = orm.User(name="alice")
    db.add(user)
    db.commit()
    spawner = User(user, {})._new_spawner(
        "", spawner_class=LabSpawner, hub=Hub(), oauth_client_id="client"
    )

    async def ask(**last: Any) -> Any:
        spawner.user_options = last
        await spawner.run_auth_state_hook({"teams": {"vision": "member"}, "courses": {}})
        return json.loads(await spawner.get_options_form())["gpus"]

    yield ask
    await LabSpawner.shared.admission.close()
    LabSpawner.shared = None
    db.close()


async def test_accounts_come_with_their_limits_and_what_would_start(
    form: Any, store: Store
) -> None:
    store.transact(
        lambda s: quota_store.set_keys(
            s, "group:vision", {"max_gpus": 1, "time_limit": "8h"}, "carol"
        )
    )
    gpus = await form(gpus=1)
    assert [(one["name"], one["selected"]) for one in gpus["accounts"]] == [
        ("group:vision", True),
        ("user:alice", False),
    ]
    vision, own = gpus["accounts"]
    assert vision["usual"] == 480
    assert vision["facts"] == ["You hold 0 of the 1 GPUs that you may have at once."]
    assert vision["outlooks"]["1"]["state"] == "now"
    assert vision["outlooks"]["2"]["state"] == "never"
    assert own["outlooks"]["2"]["state"] == "now"
    assert gpus["choices"][2]["disabled"] == vision["outlooks"]["2"]["text"]


async def test_what_is_in_use_may_be_waited_for(form: Any, store: Store) -> None:
    def take_all(session: Any) -> None:
        for number in range(3):
            transitions.request(
                session, username=f"u{number}", server_name="", account="user:u", gpus=1,
                time_limit=3600,
            )  # fmt: skip
        run_pass(session)

    store.transact(take_all)
    gpus = await form(gpus=1)
    one = gpus["choices"][1]
    assert (one["disabled"], one["selected"]) == (None, True)
    assert one["note"].startswith("waits; ")
