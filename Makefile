# What can be done with a checkout. Each target does its own set-up.
PYTHON ?= python3
export FORCE NEW_CA REFRESH

.PHONY: help up down clean logs test test-bare bench

help:
	@echo "make up         set up and start everything, and wait until it is healthy"
	@echo "                (REFRESH=yes: with Debian's newest updates in all images;"
	@echo "                NEW_CA=yes: with a new CA of the site's own, which everybody imports)"
	@echo "make down       stop; the data is kept"
	@echo "make clean      stop, and remove data and images, after asking (FORCE=yes: without)"
	@echo "make logs       follow what the services say"
	@echo "make test       all checks and tests (as root; installs what they need)"
	@echo "make test-bare  make up and make test in a container with nothing but Debian, git, make, python3"
	@echo "make bench      directory logins, environments, lists and starts of kernels, GPU decisions, servers'"
	@echo "                starts, beside their peers (NB_CONDA_KERNELS: a checkout of the kernel list's peer)"

up down clean logs test test-bare:
	@$(PYTHON) -m deploy $@

bench:
	@$(PYTHON) -m deploy test-tools
	@.venv/bin/python -m pip install --quiet --editable ".[bench]"
	@.venv/bin/python tests/bench/ldap.py
	@.venv/bin/python tests/bench/kernels_service.py
	@.venv/bin/python tests/bench/kernels.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/environments.py
	@.venv/bin/python tests/bench/gpu_policy.py
	@.venv/bin/python tests/bench/gpu_month.py
	@.venv/bin/python tests/bench/gpu_grants.py
	@.venv/bin/python tests/bench/gpu_reconcile.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/spawn.py
	@$(PYTHON) tests/rig/testbed.py exec -- .venv/bin/python tests/bench/paste.py
