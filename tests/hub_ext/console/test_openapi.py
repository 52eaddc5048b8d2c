"""The description of the console's API is true: every operation answers as it says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jupyterhub.services.auth import HubOAuth

from commons.scopes import SHARED, personal
from commons.site import Site
from commons.store import ServerWatch, Store
from hub_ext.console.app import PREFIX, make_app
from hub_ext.console.inbox import pack
from spawner import options
from spawner.gpu.ledger import transitions
from spawner.gpu.ledger.reservations import ReservationSpec
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import keys_of, read_document
from spawner.usage import rollup
from tests.rig.described import check_answer, check_schemas, operations, undeclared
from tests.rig.one_language import foreign, is_mixed, told

from .conftest import Console, ask, runs
from .test_environments import SPEC, put
from .test_people import came

RESERVATION = {
    "name": "lab", "subject": "course:ml101", "gpus": 1, "starts": "2031-01-07 14:00",
    "duration": "2h", "timezone": "UTC", "repeat": "weekly", "until": "2031-02-01",
}  # fmt: skip
QUOTAS = """
version: 1
settings: {half_life: 7d}
default: {max_gpus: 4, time_limit: 8h, default_time_limit: 1h, budget: {gpu_hours: 9, window: week}}
groups: {vision: {grp_gpus: 2, grp_budget: {gpu_hours: 5, half_life: 3d}}}
"""
MEMORY = {
    "code": "kernel_out_of_memory", "event": "0" * 32, "what": "a.ipynb", "limit_bytes": 2**30,
    "largest": {"name": "python", "what": "a.ipynb", "memory_bytes": 2**29},
}  # fmt: skip
NOTEBOOK = {
    "to": "bob", "name": "a.ipynb", "environment": "py313-data:1",
    "notebook": pack({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}),
}  # fmt: skip
ADMIN = "carol-token"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJf92H6zqwdnjLjvozHc9LF69n09jYsQv0WU82phJ/6z"
KEY_ID = "9920a7d4af1baffff0b605d4483e99d1"
# What is asked for, in this order: who asks, verb, address, its parts and parameters, the body,
# and the expected status.
WARM = {"name": "lesson", "people": ["alice"], "options": {"size": "small"}}
COURSE = {
    "version": 1, "course": "ml101", "title": {"en": "ML"}, "timezone": "UTC",
    "term": {"first": "2031-01-06", "last": "2031-02-28"}, "size": "small",
    "sessions": [{"weekdays": ["tue"], "starts": "10:00", "duration": "2h"}],
    "gpus": {"each": 1, "reserved": 1}, "granted": {"gpus": 1}, "materials": "folder",
    "handins": [{"name": "hw1", "due": "2031-01-20 23:59", "groups": True},
                {"name": "old", "due": "2025-01-20 23:59"}],
}  # fmt: skip
TOGETHER = {"scope": "course-ml101", "server": "project"}
UPLOAD = "/api/v1/channels/{channel}/packages/{file}"
PACKAGE = {"channel": "team-vision", "file": "tool-1.0-0.conda"}
NO_PACKAGE = {"package": "noarch/none", "reason": "wrong"}
# Of the request that waits, when there is one; to the front of the queue.
WAITS, FRONT = {"lease": "@waits"}, {"to": "front", "reason": "so"}
CALLS: list[tuple[str, str, str, dict[str, str], Any, int]] = [
    (ADMIN, "get", "/api/v1/gpus", {}, None, 200),
    (ADMIN, "get", "/api/v1/gpus/devices", {}, None, 200),
    ("alice-token", "get", "/api/v1/gpus/devices", {}, None, 200),
    (ADMIN, "post", "/api/v1/gpus/drain", {}, {"target": "GPU-2", "reason": "dust"}, 200),
    (ADMIN, "get", "/api/v1/gpus/devices", {}, None, 200),
    (ADMIN, "post", "/api/v1/gpus/undrain", {}, {"target": "GPU-2"}, 200),
    (ADMIN, "post", "/api/v1/gpus/drain", {}, {"target": None, "force": True}, 400),
    (ADMIN, "get", "/api/v1/leases", {}, None, 200),
    ("alice-token", "get", "/api/v1/leases/{lease}", {}, None, 200),
    (ADMIN, "get", "/api/v1/today", {}, None, 200),
    ("alice-token", "get", "/api/v1/today", {}, None, 200),
    (ADMIN, "get", "/api/v1/servers", {}, None, 200),
    ("alice-token", "get", "/api/v1/servers", {"?sort": "memory"}, None, 200),
    (ADMIN, "post", "/api/v1/servers/message", {}, {"who": ["alice"], "message": "Save"}, 200),
    (ADMIN, "post", "/api/v1/servers/extend", {}, {"who": ["alice/timed"], "by": "1m"}, 200),
    ("bob-token", "post", "/api/v1/servers/stop", {}, {"who": ["alice"], "grace": 60}, 200),
    (ADMIN, "post", "/api/v1/servers/stop", {}, {"who": ["alice"], "grace": "15m"}, 200),
    (ADMIN, "post", "/api/v1/servers/stop", {}, {"who": []}, 400),
    (ADMIN, "get", "/api/v1/people", {}, None, 200),
    ("bob-token", "get", "/api/v1/people", {"?group": "group:vision"}, None, 200),
    (ADMIN, "get", "/api/v1/people/{person}", {"person": "alice"}, None, 200),
    ("alice-token", "get", "/api/v1/people/{person}", {"person": "bob"}, None, 403),
    (ADMIN, "get", "/api/v1/people/{person}", {"person": "zoe"}, None, 404),
    (ADMIN, "put", "/api/v1/people/{person}/block", {"person": "bob"},
     {"reason": "coins", "until": "7d"}, 200),
    (ADMIN, "put", "/api/v1/people/{person}/block", {"person": "bob"}, {"reason": ""}, 400),
    ("bob-token", "put", "/api/v1/people/{person}/block", {"person": "alice"}, {"reason": "x"},
     403),
    (ADMIN, "delete", "/api/v1/people/{person}/block", {"person": "bob"}, None, 200),
    (ADMIN, "delete", "/api/v1/people/{person}/block", {"person": "bob"}, None, 409),
    ("alice-token", "post", "/api/v1/leases/{lease}/extend", {}, {"by": "1h"}, 200),
    ("alice-token", "post", "/api/v1/leases/{lease}/extend", {}, {"by": "90d"}, 200),
    ("alice-token", "post", "/api/v1/leases/{lease}/extend", {}, {"by": "90d"}, 409),
    ("alice-token", "post", "/api/v1/leases/{lease}/extend", {}, {"by": []}, 400),
    ("alice-token", "post", "/api/v1/leases/{lease}/keep", {}, {}, 200),
    ("alice-token", "post", "/api/v1/servers/keep", {}, {"server": "timed"}, 200),
    ("alice-token", "post", "/api/v1/servers/keep", {}, {"server": "none"}, 409),
    (ADMIN, "get", "/api/v1/queue", {}, None, 200),
    (ADMIN, "post", "/api/v1/queue/{lease}", WAITS, FRONT, 200),
    (ADMIN, "post", "/api/v1/queue/{lease}", WAITS, {**FRONT, "to": "hold"}, 200),
    (ADMIN, "post", "/api/v1/queue/{lease}", WAITS, {"to": "release"}, 200),
    (ADMIN, "post", "/api/v1/queue/{lease}", WAITS, {"to": "back"}, 400),
    (ADMIN, "post", "/api/v1/queue/{lease}", {}, FRONT, 409),
    ("alice-token", "post", "/api/v1/queue/{lease}", WAITS, FRONT, 403),
    (ADMIN, "get", "/api/v1/usage", {}, None, 200),
    (ADMIN, "get", "/api/v1/teams", {}, None, 200),
    ("bob-token", "get", "/api/v1/teams/{team}", {"team": "vision"}, None, 200),
    ("alice-token", "get", "/api/v1/teams/{team}", {"team": "vision"}, None, 403),
    (ADMIN, "get", "/api/v1/teams/{team}", {"team": "none"}, None, 404),
    (ADMIN, "get", "/api/v1/usage/report", {"?by": "model"}, None, 200),
    ("alice-token", "get", "/api/v1/usage/report", {"?from": "2026-11-01"}, None, 200),
    (ADMIN, "get", "/api/v1/usage/report", {"?from": "yesterday"}, None, 400),
    ("alice-token", "get", "/api/v1/me", {}, None, 200),
    (ADMIN, "get", "/api/v1/explain/{user}", {"user": "alice"}, None, 200),
    (ADMIN, "get", "/api/v1/explain/{user}", {"user": "bob", "?account": "group:vision"}, None,
     200),
    ("alice-token", "get", "/api/v1/notices", {}, None, 200),
    ("alice-server-token", "post", "/api/v1/notices", {}, MEMORY, 200),
    ("alice-server-token", "post", "/api/v1/notices", {}, {**MEMORY, "count": -1}, 400),
    ("alice-token", "post", "/api/v1/notices", {}, MEMORY, 403),
    ("alice-token", "post", "/api/v1/notices/seen", {}, {"ids": [1]}, 200),
    ("alice-token", "post", "/api/v1/notices/seen", {}, {"ids": ["1"]}, 400),
    ("alice-server-token", "post", "/api/v1/inbox", {}, NOTEBOOK, 200),
    ("alice-token", "post", "/api/v1/inbox", {}, {**NOTEBOOK, "to": "zoe"}, 403),
    ("alice-token", "post", "/api/v1/inbox", {}, {**NOTEBOOK, "notebook": "e30="}, 400),
    ("bob-token", "get", "/api/v1/inbox", {}, None, 200),
    ("bob-token", "get", "/api/v1/inbox/{number}", {"number": "1"}, None, 200),
    ("alice-token", "get", "/api/v1/inbox/{number}", {"number": "1"}, None, 404),
    ("bob-token", "delete", "/api/v1/inbox/{number}", {"number": "1"}, None, 200),
    ("bob-token", "post", "/api/v1/inbox/refused", {}, {"sender": "alice"}, 200),
    ("alice-token", "post", "/api/v1/jobs", {}, {"command": ["true"], "array": "0-1"}, 201),
    ("alice-server-token", "post", "/api/v1/jobs", {}, {"command": ["true"], "gpus": 1}, 201),
    ("alice-token", "post", "/api/v1/jobs", {}, {"command": ["true"], "array": "1-0"}, 400),
    ("alice-token", "post", "/api/v1/jobs", {}, {"command": []}, 400),
    ("alice-token", "get", "/api/v1/jobs", {"?open": "true"}, None, 200),
    ("alice-token", "get", "/api/v1/jobs", {"?user": "*"}, None, 403),
    (ADMIN, "get", "/api/v1/jobs", {"?user": "*"}, None, 200),
    ("alice-server-token", "get", "/api/v1/jobs/{job}", {"job": "1_1"}, None, 200),
    ("bob-token", "get", "/api/v1/jobs/{job}", {"job": "1"}, None, 404),
    ("alice-token", "get", "/api/v1/jobs/{job}/log", {"job": "1"}, None, 200),
    ("bob-token", "delete", "/api/v1/jobs/{job}", {"job": "1"}, None, 404),
    ("alice-token", "delete", "/api/v1/jobs/{job}", {"job": "1"}, None, 200),
    ("alice-token", "get", "/api/v1/channels", {}, None, 200),
    ("alice-token", "get", "/api/v1/channels/{channel}", {"channel": "team-vision"}, None, 200),
    ("dan-token", "get", "/api/v1/channels/{channel}", {"channel": "team-vision"}, None, 403),
    ("dan-token", "get", "/api/v1/channels/{channel}", {"channel": "team-none"}, None, 404),
    ("alice-token", "put", UPLOAD, PACKAGE, {}, 403),
    ("bob-token", "put", UPLOAD, PACKAGE | {"file": "x.zip"}, {}, 400),
    ("bob-token", "post", "/api/v1/channels/{channel}/yank", PACKAGE, NO_PACKAGE, 404),
    ("bob-token", "post", "/api/v1/channels/{channel}/restore", PACKAGE, {"package": "x"}, 404),
    (ADMIN, "post", "/api/v1/leases/{lease}/cancel", {}, None, 200),
    (ADMIN, "get", "/api/v1/quotas", {}, None, 200),
    (ADMIN, "post", "/api/v1/quotas/apply", {}, {"document": QUOTAS, "dry_run": True}, 200),
    (ADMIN, "post", "/api/v1/quotas/apply", {}, {"document": "version: 1\nuser: {}\n"}, 400),
    (ADMIN, "put", "/api/v1/quotas/{subject}", {"subject": "user:alice"}, {"max_gpus": 1}, 200),
    (ADMIN, "put", "/api/v1/quotas/{subject}", {"subject": "user:alice"}, {"most": 1}, 400),
    (ADMIN, "get", "/api/v1/quotas/{subject}", {"subject": "user:alice"}, None, 200),
    (ADMIN, "delete", "/api/v1/quotas/{subject}", {"subject": "user:alice"}, None, 200),
    (ADMIN, "get", "/api/v1/quotas/history", {}, None, 200),
    (ADMIN, "get", "/api/v1/quotas/history", {"?subject": "user:alice"}, None, 200),
    (ADMIN, "post", "/api/v1/reservations", {}, RESERVATION, 201),
    (ADMIN, "post", "/api/v1/reservations", {}, {**RESERVATION, "gpus": 3}, 409),
    (ADMIN, "post", "/api/v1/reservations", {}, {"name": "lab"}, 400),
    (ADMIN, "get", "/api/v1/reservations", {}, None, 200),
    (ADMIN, "get", "/api/v1/reservations/{reservation}", {}, None, 200),
    (ADMIN, "post", "/api/v1/reservations/{reservation}/skip", {}, {"day": "2031-01-14"}, 200),
    (ADMIN, "delete", "/api/v1/reservations/{reservation}", {}, None, 200),
    (ADMIN, "post", "/api/v1/warm-starts", {}, WARM, 201),
    (ADMIN, "post", "/api/v1/warm-starts", {}, {**WARM, "hold": "2d"}, 400),
    ("alice-token", "post", "/api/v1/warm-starts", {}, WARM, 403),
    ("dan-token", "get", "/api/v1/warm-starts", {}, None, 200),
    (ADMIN, "get", "/api/v1/warm-starts/{warm}", {"warm": "lesson"}, None, 200),
    (ADMIN, "get", "/api/v1/warm-starts/{warm}", {"warm": "none"}, None, 404),
    (ADMIN, "delete", "/api/v1/warm-starts/{warm}", {"warm": "lesson"}, None, 200),
    ("alice-token", "get", "/api/v1/courses", {}, None, 200),
    (ADMIN, "get", "/api/v1/courses/{course}", {}, None, 404),
    ("dan-token", "put", "/api/v1/courses/{course}", {}, {"document": COURSE}, 403),
    (ADMIN, "put", "/api/v1/courses/{course}", {}, {"document": COURSE, "dry_run": True}, 200),
    (ADMIN, "put", "/api/v1/courses/{course}", {}, {"document": "course: ML"}, 400),
    (ADMIN, "put", "/api/v1/courses/{course}", {"course": "other"}, {"document": COURSE}, 400),
    (ADMIN, "put", "/api/v1/courses/{course}", {}, {"document": COURSE}, 200),
    ("dan-token", "put", "/api/v1/courses/{course}", {}, {"document": {**COURSE, "size": ""}}, 200),
    ("dan-token", "put", "/api/v1/courses/{course}", {},
     {"document": {**COURSE, "gpus": {"reserved": 3}, "granted": {"gpus": 3}}}, 403),
    ("dan-token", "get", "/api/v1/courses", {}, None, 200),
    ("dan-token", "get", "/api/v1/courses/{course}", {}, None, 200),
    ("alice-token", "get", "/api/v1/courses/{course}", {}, None, 404),
    ("dan-token", "put", "/api/v1/courses/{course}/roster", {}, {"people": {"s01": "student"}},
     200),
    ("dan-token", "put", "/api/v1/courses/{course}/roster", {},
     {"people": {}, "prune": True, "dry_run": True}, 200),
    ("dan-token", "put", "/api/v1/courses/{course}/roster", {}, {"people": {"s01": "boss"}}, 400),
    ("dan-token", "get", "/api/v1/courses/{course}/roster", {}, None, 200),
    ("alice-token", "get", "/api/v1/courses/{course}/roster", {}, None, 403),
    ("dan-token", "get", "/api/v1/courses/{course}/materials", {}, None, 200),
    ("dan-token", "post", "/api/v1/courses/{course}/materials", {}, None, 202),
    ("alice-token", "post", "/api/v1/courses/{course}/materials", {}, None, 403),
    ("dan-token", "get", "/api/v1/courses/{course}/handins", {}, None, 200),
    ("alice-token", "get", "/api/v1/courses/{course}/handins", {}, None, 404),
    ("dan-token", "post", "/api/v1/courses/{course}/handins/{handin}", {}, {}, 202),
    ("dan-token", "post", "/api/v1/courses/{course}/handins/{handin}", {}, {"path": "/etc"}, 400),
    ("dan-token", "post", "/api/v1/courses/{course}/handins/{handin}", {"handin": "old"}, {}, 409),
    ("dan-token", "post", "/api/v1/courses/{course}/handins/{handin}", {"handin": "no"}, {}, 404),
    ("alice-token", "post", "/api/v1/courses/{course}/handins/{handin}", {}, {}, 404),
    (ADMIN, "post", "/api/v1/courses/{course}/handins/{handin}", {}, {}, 403),
    ("dan-token", "get", "/api/v1/courses/{course}/handins/{handin}", {}, None, 200),
    ("alice-token", "get", "/api/v1/courses/{course}/handins/{handin}", {}, None, 403),
    ("dan-token", "get", "/api/v1/courses/{course}/handed-in/{handed}", {}, None, 200),
    (ADMIN, "get", "/api/v1/courses/{course}/handed-in/{handed}", {}, None, 200),
    ("dan-token", "get", "/api/v1/courses/{course}/handed-in/{handed}", {"handed": "x"}, None, 404),
    ("alice-token", "get", "/api/v1/courses/{course}/handed-in/{handed}", {}, None, 404),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/extensions", {},
     {"team": "s01", "until": "2031-01-22 23:59"}, 200),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/extensions", {},
     {"team": "s01", "until": "soon"}, 400),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/extensions", {},
     {"until": "2031-01-19 23:59"}, 400),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/groups", {},
     {"groups": {"s01": "p1", "s02": "p1"}}, 200),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/groups", {},
     {"groups": {"s01": "no name"}}, 400),
    ("dan-token", "post", "/api/v1/courses/{course}/handins/{handin}/feedback", {},
     {"path": "graded"}, 202),
    ("alice-token", "post", "/api/v1/courses/{course}/handins/{handin}/feedback", {},
     {"path": "graded"}, 403),
    ("dan-token", "get", "/api/v1/courses/{course}/handins/{handin}", {}, None, 200),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/marks", {},
     {"marks": {"s01": {"mark": "1,3", "comment": "fine"}, "alice": "2"}}, 200),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/marks", {},
     {"marks": {"s01": None}, "dry_run": True}, 200),
    ("dan-token", "put", "/api/v1/courses/{course}/handins/{handin}/marks", {},
     {"marks": {"zoe": "1", "s01": {"mark": 1}}}, 400),
    ("dan-token", "post", "/api/v1/courses/{course}/handins/{handin}/autograde", {}, {}, 400),
    ("alice-token", "post", "/api/v1/courses/{course}/handins/{handin}/autograde", {}, {}, 403),
    ("dan-token", "get", "/api/v1/courses/{course}/handins/{handin}/autograde", {}, None, 200),
    ("dan-token", "get", "/api/v1/courses/{course}/handins/{handin}/marks", {}, None, 200),
    ("alice-token", "get", "/api/v1/courses/{course}/handins/{handin}/marks", {}, None, 403),
    ("dan-token", "get", "/api/v1/courses/{course}/end", {}, None, 200),
    ("alice-token", "get", "/api/v1/courses/{course}/end", {}, None, 404),
    ("dan-token", "post", "/api/v1/courses/{course}/end", {}, {"do": "archive"}, 202),
    ("dan-token", "post", "/api/v1/courses/{course}/end", {}, {"do": "archive"}, 409),
    ("dan-token", "post", "/api/v1/courses/{course}/end", {}, {"do": "freeze"}, 202),
    ("dan-token", "post", "/api/v1/courses/{course}/end", {}, {"do": "erase"}, 403),
    ("alice-token", "post", "/api/v1/courses/{course}/end", {}, {"do": "thaw"}, 403),
    (ADMIN, "post", "/api/v1/courses/{course}/end", {}, {"do": "erase"}, 400),
    (ADMIN, "get", "/api/v1/courses/{course}/end", {}, None, 200),
    ("dan-token", "post", "/api/v1/courses/{course}/end", {}, {"do": "thaw"}, 202),
    ("dan-token", "delete", "/api/v1/courses/{course}", {}, None, 403),
    (ADMIN, "delete", "/api/v1/courses/{course}", {}, None, 200),
    ("alice-token", "get", "/api/v1/shared-servers", {}, None, 200),
    ("dan-token", "put", "/api/v1/shared-servers/{scope}/{server}", TOGETHER,
     {"options": {"size": "small"}}, 200),
    ("dan-token", "put", "/api/v1/shared-servers/{scope}/{server}", TOGETHER,
     {"options": {"size": "vast"}}, 400),
    ("dan-token", "put", "/api/v1/shared-servers/{scope}/{server}", {**TOGETHER, "server": "A"}, {},
     400),
    ("alice-token", "put", "/api/v1/shared-servers/{scope}/{server}", TOGETHER, {}, 403),
    ("dan-token", "put", "/api/v1/shared-servers/{scope}/{server}", {**TOGETHER, "scope": "x"}, {},
     404),
    ("alice-token", "post", "/api/v1/shared-servers/{scope}/{server}", TOGETHER, {"up": True}, 404),
    ("dan-token", "post", "/api/v1/shared-servers/{scope}/{server}", TOGETHER, {"up": True}, 200),
    ("dan-token", "delete", "/api/v1/shared-servers/{scope}/{server}", TOGETHER, None, 409),
    ("dan-token", "post", "/api/v1/shared-servers/{scope}/{server}", TOGETHER, {"up": "no"}, 400),
    ("dan-token", "get", "/api/v1/shared-servers", {}, None, 200),
    ("dan-token", "delete", "/api/v1/shared-servers/{scope}/{server}",
     {**TOGETHER, "server": "none"}, None, 404),
    (ADMIN, "get", "/api/v1/doctor", {}, None, 200),
    (ADMIN, "get", "/api/v1/vulnerable", {}, None, 200),
    ("alice-token", "get", "/api/v1/vulnerable", {}, None, 403),
    (ADMIN, "get", "/api/v1/audit", {}, None, 200),
    ("alice-token", "get", "/api/v1/audit", {}, None, 403),
    ("alice-token", "get", "/api/v1/doctor", {}, None, 403),
    (ADMIN, "post", "/api/v1/broadcasts", {}, {"en": "Slow", "until": "2h"}, 201),
    (ADMIN, "post", "/api/v1/broadcasts", {}, {"en": "", "until": "2h"}, 400),
    (ADMIN, "post", "/api/v1/broadcasts", {}, {"en": "Slow", "until": "soon"}, 400),
    ("alice-token", "post", "/api/v1/broadcasts", {}, {"en": "Slow", "until": "2h"}, 403),
    ("alice-server-token", "get", "/api/v1/broadcasts", {}, None, 200),
    (ADMIN, "get", "/api/v1/broadcasts/history", {}, None, 200),
    (ADMIN, "delete", "/api/v1/broadcasts/{broadcast}", {}, None, 200),
    (ADMIN, "delete", "/api/v1/broadcasts/{broadcast}", {}, None, 404),
    ("alice-token", "post", "/api/v1/ssh/keys", {}, {"line": f"{KEY} laptop"}, 201),
    ("alice-token", "post", "/api/v1/ssh/keys", {}, {"line": KEY}, 400),
    ("alice-token", "post", "/api/v1/ssh/keys", {}, {"line": f'command="sh" {KEY}'}, 400),
    ("alice-server-token", "post", "/api/v1/ssh/keys", {}, {"line": KEY}, 403),
    ("alice-token", "get", "/api/v1/ssh/keys", {}, None, 200),
    ("alice-token", "get", "/api/v1/ssh/client", {}, None, 200),
    ("bob-token", "delete", "/api/v1/ssh/keys/{key}", {"key": KEY_ID}, None, 404),
    ("alice-token", "delete", "/api/v1/ssh/keys/{key}", {"key": KEY_ID}, None, 200),
    ("alice-token", "delete", "/api/v1/ssh/keys/{key}", {"key": KEY_ID}, None, 404),
    (ADMIN, "post", "/api/v1/maintenance", {}, {"en": "Disks", "until": "2h", "stop": "1h"}, 201),
    (ADMIN, "post", "/api/v1/maintenance", {}, {"en": "Disks"}, 409),
    (ADMIN, "get", "/api/v1/maintenance", {}, None, 200),
    (ADMIN, "delete", "/api/v1/maintenance", {}, None, 200),
    (ADMIN, "delete", "/api/v1/maintenance", {}, None, 404),
    ("alice-token", "get", "/api/v1/maintenance", {}, None, 403),
    (ADMIN, "get", "/metrics", {}, None, 200),
    ("alice-token", "get", "/metrics", {}, None, 403),
    ("", "get", "/health", {}, None, 200),
    ("alice-token", "get", "/api/v1/environments", {}, None, 200),
    ("alice-token", "post", "/api/v1/environments", {},
     {"source": "personal", "name": "mine", "spec": SPEC}, 202),
    ("alice-token", "post", "/api/v1/environments", {}, {"source": "nowhere"}, 400),
    ("alice-token", "post", "/api/v1/environments", {}, {"sources": "personal"}, 400),
    ("alice-token", "get", "/api/v1/environments/look", {}, None, 200),
    ("alice-token", "post", "/api/v1/environments/look", {}, {}, 202),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}", {}, None, 200),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}",
     {"source": "image", "name": "py313-data"}, None, 200),
    (ADMIN, "get", "/api/v1/environments/{source}/{name}", {"?user": "alice"}, None, 200),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}", {"name": "none"}, None, 404),
    ("alice-token", "post", "/api/v1/environments/{source}/{name}/copy", {},
     {"to": "personal", "name": "other"}, 202),
    ("alice-token", "post", "/api/v1/environments/{source}/{name}/derive", {"source": "shared"},
     {"remove": ["cowsay"]}, 400),
    ("alice-token", "post", "/api/v1/environments/{source}/{name}/preview", {},
     {"add": ["cowsay"]}, 200),
    ("alice-token", "post", "/api/v1/environments/{source}/{name}/edit", {},
     {"add": ["cowsay"], "base": "1"}, 409),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}/export", {}, None, 200),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}/export", {"?format": "x"}, None,
     400),
    ("alice-token", "get", "/api/v1/environments/{source}/{name}/diff", {}, None, 200),
    (ADMIN, "post", "/api/v1/environments/{source}/{name}/versions/{version}/{what}",
     {"source": "shared", "what": "deprecate"}, {"reason": "old"}, 200),
    (ADMIN, "post", "/api/v1/environments/{source}/{name}/versions/{version}/{what}",
     {"source": "shared", "what": "tag"}, {"tag": "new"}, 400),
    (ADMIN, "get", "/api/v1/environments/{source}/{name}", {"source": "shared"}, None, 200),
    ("alice-token", "delete", "/api/v1/environments/{source}/{name}", {}, None, 202),
    ("alice-token", "get", "/api/v1/builds", {}, None, 200),
    ("alice-token", "get", "/api/v1/builds/{build}", {"?offset": "0"}, None, 200),
    ("alice-token", "get", "/api/v1/builds/{build}", {"?offset": "x"}, None, 400),
    ("alice-token", "post", "/api/v1/builds/{build}/cancel", {}, {}, 202),
    ("alice-token", "post", "/api/v1/builds/{build}/retry", {}, {}, 202),
    ("alice-token", "post", "/api/v1/builds/{build}/preview", {}, {"add": ["cowsay"]}, 200),
    ("alice-token", "post", "/api/v1/builds/{build}/correct", {}, {"add": ["cowsay"]}, 202),
]  # fmt: skip


@pytest.fixture
async def lived_in(filled: Console) -> Console:
    """With somebody who waits, quotas, and environments of two versions."""
    store = filled.store
    lease = store.transact(lambda s: ask(s, "alice", "timed", gpu_type="", time_limit=3600))
    store.transact(lambda s: transitions.activate(s, lease, "container-2"))
    store.transact(lambda s: ask(s, "alice", "more", gpus=2))
    store.transact(lambda s: quota_store.apply(s, read_document(QUOTAS), "carol"))
    watched = ServerWatch(
        key="9f3c", username="alice", server_name="timed", at=0.0, use="idle", idle_seconds=3600.0,
        warnings=0, kept_seconds=0.0, keep_for=3600.0, keep_at_most=7200.0, stopping=False,
    )  # fmt: skip
    store.transact(lambda s: s.add(watched))
    finding = {"level": "warn", "code": "pip", "message": "beside", "remedy": "list"}
    for scope in (personal("alice"), SHARED):
        for version in ("1", "2"):
            packages = [{"name": "numpy", "version": f"2.{version}", "channel": "conda-forge"}]
            put(filled, scope, "py", version, "12", findings=[finding], packages=packages)
    rollup.make_all(store)
    store.transact(came)
    filled.tells(
        runs("alice", gpus=1, memory=10**9, cpu=0.5, active="2026-11-29T08:00:00Z"),
        runs("alice", "timed", gpus=1),
        runs("bob", "train", account="group:vision"),
        runs("s01", account="course:ml101", state="stopping"),
        alice="2026-11-29T08:30:00Z",
    )
    return filled


async def test_every_operation_answers_as_described(lived_in: Console) -> None:
    document = await lived_in.json("openapi.json")
    leases = (await lived_in.json("api/v1/leases", "alice-token"))["leases"]
    [lease] = [one["id"] for one in leases if one["server"] == "timed"]
    queue = (await lived_in.json("api/v1/queue", "alice-token"))["requests"]
    known = {
        "lease": lease, "source": "personal", "name": "py", "version": "2", "course": "ml101",
        "handin": "hw1", "waits": queue[0]["id"],
    }  # fmt: skip
    for token, verb, path, more, body, status in CALLS:
        parts = known | {k: known[v[1:]] if v[:1] == "@" else v for k, v in more.items()}
        address = path.removeprefix("/").format(**parts)
        query = "&".join(f"{k[1:]}={v}" for k, v in more.items() if k.startswith("?"))
        sent = {} if body is None and verb in ("post", "put") else body
        answer = await lived_in.send(
            verb.upper(), f"{address}?{query}", token, sent, **{"Accept-Language": "zh-CN"}
        )
        assert answer.code == status, (verb, path, answer.body)
        check_answer(document, verb, path, answer)
        if answer.headers.get("Content-Type", "").startswith("application/json"):
            # Kind: whatever is refused or told is said in the reader's language alone.
            said = list(told(json.loads(answer.body)))
            assert [one for one in said if is_mixed(one, "zh_CN")] == [], (verb, path)
        if answer.code == 201 and path not in ("/api/v1/maintenance", "/api/v1/jobs"):
            known["reservation"] = known["broadcast"] = json.loads(answer.body)["id"]
        if answer.code == 202 and path.endswith("/{handin}"):
            known["handed"] = json.loads(answer.body)["id"]
        if answer.code == 202 and path == "/api/v1/environments":
            known["build"] = json.loads(answer.body)["build"]["id"]
    assert {(verb, path) for _, verb, path, *_ in CALLS} == operations(document)


async def test_who_is_not_known_is_refused_as_described(filled: Console) -> None:
    document = await filled.json("openapi.json")
    for verb, path in operations(document):
        address = path.removeprefix("/").replace("{build}", "0" * 32).replace("{what}", "pin")
        address = address.replace("{number}", "1").replace("{key}", KEY_ID)
        address = address.replace("{", "").replace("}", "")
        answer = await filled.send(verb.upper(), address, **{"Accept-Language": "zh-CN"})
        if answer.code != 200:
            [said] = set(told(json.loads(answer.body)))
            assert foreign([said], "zh", ("openapi.json", "Authorization", "TOKEN", "token")) == []
        public = document["paths"][path][verb].get("security") == []
        assert answer.code == (200 if public else 401), path
        check_answer(document, verb, path, answer)


def test_nothing_of_the_api_is_left_undescribed(lab_site: Site, lab_store: Store) -> None:
    auth = HubOAuth(api_token="x", api_url="http://127.0.0.1:1/hub/api", base_url=PREFIX)
    app = make_app(lab_site, lab_store, auth)
    assert undeclared(app) == []
    check_schemas(app.settings["described"])


def test_the_description_names_the_keys_that_are_taken(lab_site: Site, lab_store: Store) -> None:
    auth = HubOAuth(api_token="x", api_url="http://127.0.0.1:1/hub/api", base_url=PREFIX)
    document = make_app(lab_site, lab_store, auth).settings["described"]
    schemas = document["components"]["schemas"]
    assert set(schemas["ReservationSpec"]["properties"]) == set(ReservationSpec.model_fields)
    assert tuple(schemas["UserOptions"]["properties"]) == options.KEYS
    put_ = document["paths"]["/api/v1/quotas/{subject}"]["put"]
    name = put_["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert set(schemas[name]["properties"]) == {*keys_of("settings"), *keys_of("group")}
    drain = document["paths"]["/api/v1/gpus/drain"]["post"]
    assert "administrators" in drain["description"]
