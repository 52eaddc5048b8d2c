# What can be done with a checkout. Each target does its own set-up.
PYTHON ?= python3
export FORCE NEW_CA REFRESH UPGRADE

.PHONY: help up rollback start service down clean logs locks picture guide-pictures test test-bare bench soak faults

help:
	@echo "make up         set up and start everything, and wait until it is healthy"
	@echo "                (REFRESH=yes: with Debian's newest updates in all images;"
	@echo "                NEW_CA=yes: with a new CA of the site's own, which everybody imports)"
	@echo "make rollback   what ran before the last make up with another version, again; asks where databases"
	@echo "                have to go back, too (FORCE=yes: without)"
	@echo "make start      start what make up has set up, and change nothing"
	@echo "make service    have systemd do so with the machine (make up does, as root)"
	@echo "make down       stop; the data is kept, and nothing but make up starts the site again"
	@echo "make clean      stop, and remove data and images, after asking (FORCE=yes: without)"
	@echo "make logs       follow what the services say"
	@echo "make picture    draw docs/rooms.svg, the rooms as the code has them"
	@echo "make guide-pictures  take the guides' pictures anew, in both languages, from a demo that it starts"
	@echo "make locks      choose the images' and the tests' packages from the ranges in pyproject.toml"
	@echo "                (UPGRADE=yes: the newest; else those of now stay where they fit)"
	@echo "make test       all checks and tests (as root; installs what they need)"
	@echo "make test-bare  make up and make test in a container with nothing but Debian, git, make, python3"
	@echo "make bench      directory logins, environments, lists and starts of kernels, GPU decisions, servers'"
	@echo "                starts, beside their peers, the hub alone, the audit trail, backups (NB_CONDA_KERNELS: a checkout of the kernel list's peer)"
	@echo "make faults     break a site in every way of docs/faults.md, and write down what held (ROWS=\"NAME …\": some)"
	@echo "make soak       starts and stops for SOAK_MINUTES=15, SOAK_SERVERS=8 at once: nothing may grow or be left"

up rollback start service down clean logs locks picture test test-bare:
	@$(PYTHON) -m deploy $@

guide-pictures:
	@$(PYTHON) -m deploy test-tools
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/rig/guide_pictures.py $(NAMES)

bench:
	@$(PYTHON) -m deploy test-tools
	@.venv/bin/python tests/bench/ldap.py
	@.venv/bin/python tests/bench/kernels_service.py
	@.venv/bin/python tests/bench/kernel_list.py
	@.venv/bin/python tests/bench/channel.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/environment_builds.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/in_hub.py gpu_policy.py
	@.venv/bin/python tests/bench/gpu_month.py
	@.venv/bin/python tests/bench/console.py
	@.venv/bin/python tests/bench/gpu_grants.py
	@.venv/bin/python tests/bench/gpu_reconcile.py
	@.venv/bin/python tests/bench/jobs.py
	@.venv/bin/python tests/bench/mirror.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/in_hub.py hub_alone.py
	@.venv/bin/python tests/bench/audit.py
	@.venv/bin/python tests/bench/signatures.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/backup.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/spawn.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/crowd.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/classroom.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/shared_server.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/start_parts.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/ssh.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/paste.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/handins.py

faults:
	@$(PYTHON) -m deploy test-tools
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/faults/table.py $(ROWS)

soak:
	@$(PYTHON) -m deploy test-tools
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/soak.py
