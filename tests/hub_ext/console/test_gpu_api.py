"""GPUs, leases, the queue, quotas and reservations by REST: what is answered, to whom."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from commons.store import Lease, Store
from spawner.gpu.quotas import quota_store

from .conftest import Console, ask

LAB = {
    "name": "ML lab",
    "subject": "course:ml101",
    "gpus": 2,
    "gpu_type": "A100",
    "starts": "2034-11-28T10:00",
    "duration": "2h",
    "timezone": "Europe/Berlin",
    "repeat": "weekly",
    "anyway": True,  # somebody's lease has no end
}


def specs(store: Store) -> dict[str, dict[str, Any]]:
    return store.transact(quota_store.specs)


async def error(answer: Any, status: int) -> dict[str, Any]:
    assert answer.code == status, answer.body
    found = json.loads(answer.body)["error"]
    assert isinstance(found["reasons"], list)
    return dict(found)


# -- leases and the queue ---------------------------------------------------------------------


async def test_who_waits_sees_place_start_and_reasons_with_code_and_sentence(
    filled: Console,
) -> None:
    filled.store.transact(lambda s: ask(s, "alice", "more", "group:vision", time_limit=3600))
    queue = await filled.json("api/v1/queue", "alice-token")
    (mine,) = queue["requests"]
    assert (queue["total"], mine["waiting"]["position"], mine["account"]) == (1, 1, "group:vision")
    (reason,) = mine["waiting"]["reasons"]
    assert reason["code"] == "gpus_busy"
    assert reason["sentence"] == "0 of 2 A100 are free, 1 needed."
    assert reason["data"]["gpus"] == 1


async def test_leads_see_their_team_and_no_more(filled: Console) -> None:
    filled.store.transact(lambda s: ask(s, "alice", "more", "group:vision"))
    filled.store.transact(lambda s: ask(s, "eve", "", "group:speech"))
    seen = await filled.json("api/v1/queue", "bob-token")
    assert (seen["total"], [one["user"] for one in seen["requests"]]) == (2, ["alice"])
    assert (await filled.json("api/v1/queue", "dan-token"))["requests"] == []
    assert len((await filled.json("api/v1/queue", "carol-token"))["requests"]) == 2


async def test_a_lease_of_somebody_else_does_not_exist(filled: Console) -> None:
    lease = (await filled.json("api/v1/leases", "alice-token"))["leases"][0]["id"]
    assert (await filled.json(f"api/v1/leases/{lease}", "alice-token"))["user"] == "alice"
    for path in (f"api/v1/leases/{lease}", "api/v1/leases/none"):
        await error(await filled.get(path, "dan-token"), 404)
    for action in ("cancel", "keep"):
        path = f"api/v1/leases/{lease}/{action}"
        found = await error(await filled.send("POST", path, "dan-token", {}), 404)
        assert found["code"] == "lease_unknown"
    assert filled.store.transact(lambda s: s.get_one(Lease, lease).stop_reason) is None


async def test_leaving_the_queue_gives_the_place_to_the_next(filled: Console) -> None:
    lease = filled.store.transact(lambda s: ask(s, "alice", "more", "group:vision"))
    answer = await filled.send("POST", f"api/v1/leases/{lease}/cancel", "bob-token", {})
    assert json.loads(answer.body)["state"] == "ended"
    assert (await filled.json("api/v1/queue", "carol-token"))["total"] == 0
    found = await error(
        await filled.send("POST", f"api/v1/leases/{lease}/cancel", "bob-token", {}), 409
    )
    assert found["code"] == "lease_over"


async def test_a_running_server_is_stopped_by_the_hub_not_by_the_console(filled: Console) -> None:
    lease = (await filled.json("api/v1/leases", "alice-token"))["leases"][0]["id"]
    answer = await filled.send("POST", f"api/v1/leases/{lease}/cancel", "alice-token", {})
    after = json.loads(answer.body)
    assert (after["state"], after["stop"]["reason"]) == ("active", "cancelled")


async def test_an_extension_is_refused_with_its_reasons(filled: Console) -> None:
    lease = (await filled.json("api/v1/leases", "alice-token"))["leases"][0]["id"]
    path = f"api/v1/leases/{lease}/extend"
    found = await error(await filled.send("POST", path, "alice-token", {"by": "1h"}), 409)
    assert (found["code"], found["reasons"][0]["code"]) == ("not_extended", "extend_endless")
    for wrong in ("soon", -1, None, "8 h", 1e99):
        found = await error(await filled.send("POST", path, "alice-token", {"by": wrong}), 400)
        assert found["code"] == "duration_wrong"


async def test_an_extension_within_the_limits_moves_the_end(filled: Console) -> None:
    def start(session: Any) -> str:
        lease = ask(session, "dan", gpu_type="", time_limit=3600)
        return lease

    lease = filled.store.transact(start)
    before = (await filled.json(f"api/v1/leases/{lease}", "dan-token"))["ends_at"]
    answer = await filled.send("POST", f"api/v1/leases/{lease}/extend", "dan-token", {"by": "1h"})
    assert answer.code == 200, answer.body
    assert json.loads(answer.body)["ends_at"] > before


@pytest.mark.parametrize("token", ["alice-token", "alice-server-token"])
async def test_who_left_a_team_does_not_go_on_at_its_cost(filled: Console, token: str) -> None:
    """Kind: what was right when somebody asked is looked at again when it is extended."""
    lease = (await filled.json("api/v1/leases", "alice-token"))["leases"][0]["id"]

    def of_another_team(session: Any) -> None:
        row = session.get_one(Lease, lease)
        row.account, row.time_limit = "group:speech", 3600
        row.ends_at = row.held_at + timedelta(hours=1)

    filled.store.transact(of_another_team)
    path = f"api/v1/leases/{lease}/extend"
    found = await error(await filled.send("POST", path, token, {"by": "1h"}), 403)
    assert found["code"] == "account_not_yours"
    # Who looks after the GPUs may let it go on.
    answer = await filled.send("POST", path, "carol-token", {"by": "1h"})
    assert answer.code == 200, answer.body


async def test_an_extension_goes_as_far_as_is_allowed_and_says_why_no_farther(
    filled: Console,
) -> None:
    """Not all or nothing: 44 minutes are left, an hour is asked for."""
    lease = filled.store.transact(lambda s: ask(s, "dan", gpu_type="", time_limit=3600))
    body = {"document": {"version": 1, "default": {"time_limit": "104m"}}}
    await filled.send("POST", "api/v1/quotas/apply", "carol-token", body)
    path = f"api/v1/leases/{lease}/extend"
    answer = await filled.send("POST", path, "dan-token", {"by": "1h"})
    found = json.loads(answer.body)
    assert (answer.code, found["extended_by"]) == (200, 44 * 60)
    assert found["message"].startswith("Extended by 44 min, the most that is allowed now. A time")
    assert [reason["code"] for reason in found["reasons"]] == ["time_limit_most"]
    await error(await filled.send("POST", path, "dan-token", {"by": "1h"}), 409)


async def test_me_says_what_may_be_used_and_from_where(filled: Console) -> None:
    document = {
        "version": 1,
        "default": {"max_gpus": 1, "default_time_limit": "2h"},
        "groups": {"vision": {"grp_gpus": 4, "grp_budget": {"gpu_hours": 10, "window": "week"}}},
    }
    body = {"document": document}
    await filled.send("POST", "api/v1/quotas/apply", "carol-token", body)
    mine = await filled.json("api/v1/me", "alice-token")
    vision, own = mine["accounts"]
    assert (vision["account"], own["account"]) == ("group:vision", "user:alice")
    assert vision["default_time_limit"] == 7200
    assert {"key": "grp_gpus", "value": 4, "source": "group:vision", "instead_of": []} in vision[
        "limits"
    ]
    (budget,) = vision["budgets"]
    assert (budget["left"], budget["window"], budget["user"]) == (10, "week", None)
    assert own["held"] == 1


async def test_explain_is_for_oneself_leads_and_administrators(filled: Console) -> None:
    await error(await filled.get("api/v1/explain/alice", "dan-token"), 403)
    await error(await filled.get("api/v1/explain/alice?account=course:x", "alice-token"), 403)
    of_team = "api/v1/explain/alice?account=group:vision"
    assert (await filled.get(of_team, "bob-token")).code == 200
    assert (await filled.json("api/v1/explain/alice", "carol-token"))["held"] == 1


async def test_use_is_ones_own_or_that_of_the_team_one_leads(filled: Console) -> None:
    filled.store.transact(lambda s: ask(s, "eve", "", "group:speech", gpu_type=""))
    seen = await filled.json("api/v1/usage", "alice-token")
    assert {one["account"] for one in seen["accounts"]} == {"user:alice"}
    everybody = await filled.json("api/v1/usage", "carol-token")
    assert {"user:alice", "user:bob", "group:speech"} <= {
        one["account"] for one in everybody["accounts"]
    }


# -- devices ----------------------------------------------------------------------------------


async def test_a_drained_gpu_is_shown_with_its_reason_and_returned(filled: Console) -> None:
    body = {"target": "GPU-2", "reason": "fan"}
    await error(await filled.send("POST", "api/v1/gpus/drain", "bob-token", body), 403)
    done = await filled.send("POST", "api/v1/gpus/drain", "carol-token", body)
    assert json.loads(done.body)["devices"] == ["GPU-2"]
    seen = (await filled.json("api/v1/gpus/devices", "alice-token"))["devices"]
    states = {one["id"]: (one["state"], one["reason"]) for one in seen}
    assert states["GPU-2"] == ("drained", "fan")
    assert "leases" not in seen[0]
    await filled.send("POST", "api/v1/gpus/undrain", "carol-token", {"target": "GPU-2"})
    seen = (await filled.json("api/v1/gpus/devices", "carol-token"))["devices"]
    assert [one["state"] for one in seen] == ["leased", "leased", "free"]
    found = await error(
        await filled.send("POST", "api/v1/gpus/drain", "carol-token", {"target": "x"}), 400
    )
    assert found["code"] == "gpu_unknown"


# -- quotas -----------------------------------------------------------------------------------


async def test_an_administrator_changes_a_quota_and_others_may_not(filled: Console) -> None:
    path = "api/v1/quotas/group:vision"
    for token in ("alice-token", "bob-token", "carol-narrow-token"):
        found = await error(await filled.send("PUT", path, token, {"grp_gpus": 9}), 403)
        assert found["code"] == "admins_only"
        await error(await filled.send("DELETE", path, token), 403)
        await error(await filled.send("POST", "api/v1/quotas/apply", token, {}), 403)
        await error(await filled.get("api/v1/quotas/history", token), 403)
    answer = await filled.send("PUT", path, "carol-token", {"grp_gpus": 4, "time_limit": 3600})
    assert json.loads(answer.body)["quota"] == {"grp_gpus": 4, "time_limit": "1h"}
    assert specs(filled.store) == {"group:vision": {"grp_gpus": 4, "time_limit": "1h"}}
    (last, *_) = (await filled.json("api/v1/quotas/history", "carol-token"))["changes"]
    assert (last["by"], last["after"]["grp_gpus"]) == ("carol", 4)
    assert (await filled.send("DELETE", path, "carol-token")).code == 200
    assert specs(filled.store) == {}


async def test_people_read_what_is_set_for_them_alone(filled: Console) -> None:
    body = {"document": "version: 1\ndefault: {max_gpus: 1}\nusers: {bob: {max_gpus: 2}}"}
    await filled.send("POST", "api/v1/quotas/apply", "carol-token", body)
    assert set((await filled.json("api/v1/quotas", "alice-token"))["quotas"]) == {"default"}
    assert set((await filled.json("api/v1/quotas", "bob-token"))["quotas"]) == {
        "default",
        "user:bob",
    }
    await error(await filled.get("api/v1/quotas/user:bob", "alice-token"), 403)


async def test_a_change_does_not_overwrite_an_unseen_one(filled: Console) -> None:
    path = "api/v1/quotas/default"
    tag = (await filled.get(path, "carol-token")).headers["ETag"]
    await filled.send("PUT", path, "carol-token", {"max_gpus": 1}, **{"If-Match": tag})
    answer = await filled.send("PUT", path, "carol-token", {"max_gpus": 8}, **{"If-Match": tag})
    assert (await error(answer, 412))["code"] == "changed_meanwhile"
    assert specs(filled.store)["default"] == {"max_gpus": 1}


@pytest.mark.parametrize(
    ("body", "path", "code"),
    [
        ({"max_gpus": -1}, "default.max_gpus", "not_a_count"),
        ({"max_gpus": 1.5}, "default.max_gpus", "not_a_count"),
        ({"time_limit": "never"}, "default.time_limit", "not_a_duration"),
        (
            {"budget": {"gpu_hours": 1e300, "window": "day"}},
            "default.budget.gpu_hours",
            "not_an_amount",
        ),
        ({"grp_gpus": 1}, "default.grp_gpus", "for_groups"),
    ],
)
async def test_a_wrong_quota_is_refused_by_its_key(
    filled: Console, body: dict[str, Any], path: str, code: str
) -> None:
    answer = await filled.send("PUT", "api/v1/quotas/default", "carol-token", body)
    found = await error(answer, 400)
    assert found["code"] == "quotas_wrong"
    assert (found["problems"][0]["path"], found["problems"][0]["code"]) == (path, code)
    assert specs(filled.store) == {}


@pytest.mark.parametrize("body", ["", "[]", "{", '"x"', "NaN", "[" * 100_000, '{"nokey": 1}'])
async def test_a_body_that_is_no_request_is_refused(filled: Console, body: str) -> None:
    answer = await filled.send("POST", "api/v1/quotas/apply", "carol-token", body)
    assert answer.code == 400, answer.body


async def test_nan_in_json_is_refused(filled: Console) -> None:
    for value in ("NaN", "Infinity", "-Infinity"):
        body = f'{{"budget": {{"gpu_hours": {value}, "window": "day"}}}}'
        await error(await filled.send("PUT", "api/v1/quotas/default", "carol-token", body), 400)


async def test_a_dry_run_says_what_would_change(filled: Console) -> None:
    body = {"document": {"version": 1, "default": {"time_limit": "8h"}}, "dry_run": True}
    answer = await filled.send("POST", "api/v1/quotas/apply", "carol-token", body)
    assert json.loads(answer.body) == {
        "applied": False,
        "changes": [{"subject": "default", "key": "time_limit", "before": None, "after": "8h"}],
        "warnings": [],
        # Alice and bob hold GPUs.
        "effects": {"starts": [], "waits": [], "moved": [], "ends": [], "people": ["alice", "bob"]},
    }
    body["document"] = {"version": 1, "users": {"nobody": {"max_gpus": 2}}}
    answer = await filled.send("POST", "api/v1/quotas/apply", "carol-token", body)
    warning, endless = json.loads(answer.body)["warnings"]
    assert (endless["path"], endless["code"]) == ("default", "no_time_limit")
    assert (warning["path"], warning["code"]) == ("user:nobody", "person_unknown")
    assert warning["hint"]["code"] == "known_names"
    assert specs(filled.store) == {}


# -- reservations -----------------------------------------------------------------------------


async def test_a_reservation_is_made_by_administrators_and_seen_by_all(filled: Console) -> None:
    await error(await filled.send("POST", "api/v1/reservations", "dan-token", LAB), 403)
    made = await filled.send("POST", "api/v1/reservations", "carol-token", LAB)
    assert made.code == 201, made.body
    (seen,) = (await filled.json("api/v1/reservations", "alice-token"))["reservations"]
    assert (seen["name"], seen["duration"], seen["created_by"]) == ("ML lab", 7200, "carol")


async def test_a_clash_is_named(filled: Console) -> None:
    await filled.send("POST", "api/v1/reservations", "carol-token", LAB)
    # A week later, an hour into it.
    other = {**LAB, "name": "Demo", "subject": "group:vision", "starts": "2034-12-05T11:00"}
    found = await error(await filled.send("POST", "api/v1/reservations", "carol-token", other), 409)
    assert found["code"] == "reservation_clash"
    assert "“ML lab” (course:ml101) is in the way" in found["message"]
    assert found["clashes"][0]["with"]["name"] == "ML lab"


async def test_a_reservation_that_cannot_be_kept_says_why_before_it_is_saved(
    filled: Console,
) -> None:
    body = {"target": "GPU-0"}
    drained = await filled.send("POST", "api/v1/gpus/drain", "carol-token", body)
    assert json.loads(drained.body)["unkept"] == []
    careful = {**LAB, "anyway": False}
    answer = await filled.send("POST", "api/v1/reservations", "carol-token", careful)
    found = await error(answer, 409)
    assert found["code"] == "reservation_unkept"
    reasons = [reason["code"] for reason in found["reasons"]]
    assert reasons == ["reserved_out_of_service", "reserved_in_use"]
    assert (await filled.json("api/v1/reservations", "alice-token"))["reservations"] == []
    assert (await filled.send("POST", "api/v1/reservations", "carol-token", LAB)).code == 201
    drained = await filled.send("POST", "api/v1/gpus/drain", "carol-token", body)
    assert json.loads(drained.body)["unkept"] == []  # it is eight years ahead


async def test_an_instructor_leaves_out_a_day_and_gives_up_the_courses_reservation(
    filled: Console,
) -> None:
    made = await filled.send("POST", "api/v1/reservations", "carol-token", LAB)
    path = f"api/v1/reservations/{json.loads(made.body)['id']}"
    day = {"day": "2034-12-05"}
    found = await error(await filled.send("POST", f"{path}/skip", "alice-token", day), 403)
    assert found["code"] == "not_yours"
    done = await filled.send("POST", f"{path}/skip", "dan-token", day)
    assert json.loads(done.body)["skipped"] == ["2034-12-05"]
    for wrong in ("2034-12-05", "2034-12-06", "soon", ""):
        await error(await filled.send("POST", f"{path}/skip", "dan-token", {"day": wrong}), 400)
    await error(await filled.send("DELETE", path, "alice-token"), 403)
    assert (await filled.send("DELETE", path, "dan-token")).code == 200
    await error(await filled.get(path, "dan-token"), 404)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"starts": "2020-01-01T10:00", "repeat": "once"}, "over already"),
        ({"starts": "tomorrow"}, "starts: must be a day and a time"),
        ({"starts": "2034-13-01T10:00"}, "starts:"),
        ({"timezone": "Mars/Olympus"}, "timezone: is not a time zone"),
        ({"timezone": "../../etc/passwd"}, "timezone: is not a time zone"),
        ({"duration": "0h"}, "duration:"),
        ({"duration": "8d"}, "must end before the next time"),
        ({"gpus": 0}, "gpus: must be a whole number"),
        ({"gpus": 3}, "So many GPUs do not exist"),
        ({"gpu_type": "H100"}, "no GPU type"),
        ({"gpus": None, "gpu_type": None, "devices": ["GPU-x"]}, "no GPU “GPU-x”"),
        ({"subject": "course:ml102"}, "Did you mean “course:ml101”?"),
        ({"subject": "default"}, "must be one of: group:NAME"),
        ({"name": ""}, "name:"),
        ({"repeat": "monthly"}, "repeat: must be one of"),
        ({"repeat": "daily", "weekdays": ["mon"]}, "weekdays goes with"),
        ({"weekdays": ["monday", "noday"]}, "must be mon"),
        ({"until": "2030-01-01"}, "until must not be before"),
    ],
)
async def test_a_reservation_that_cannot_be_says_why(
    filled: Console, change: dict[str, Any], said: str
) -> None:
    answer = await filled.send("POST", "api/v1/reservations", "carol-token", {**LAB, **change})
    assert answer.code in (400, 409)
    assert said in json.loads(answer.body)["error"]["message"]
    assert (await filled.json("api/v1/reservations", "alice-token"))["reservations"] == []


# -- pages ------------------------------------------------------------------------------------


async def test_pages_of_quotas_are_for_administrators(filled: Console) -> None:
    for path in ("quotas", "quotas/edit?subject=default", "quotas.yaml"):
        assert (await filled.get(path, "bob-token")).code == 403
        assert (await filled.get(path, "carol-server-token")).code == 403
        assert (await filled.get(path, "carol-token")).code == 200
    assert (await filled.get("quotas/edit?subject=planet:earth", "carol-token")).code == 400


async def test_the_page_says_why_somebody_waits_in_their_language(filled: Console) -> None:
    filled.store.transact(lambda s: ask(s, "alice", "more", "group:vision"))
    page = (await filled.get("", "alice-token")).body.decode()
    assert "0 of 2 A100 are free, 1 needed." in page
    assert "Leave the queue" in page
    others = (await filled.get("", "dan-token")).body.decode()
    assert "alice" not in others
    assert "Requests of others that wait: 1." in others
