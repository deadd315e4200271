# Entry points for people and for CI. Everything that is installed goes into .venv.

VENV  := .venv
READY := $(VENV)/.ready
BIN   := $(VENV)/bin
TESTS ?= tests
# Most system tests wait for other processes, so two test processes per core pay off.
JOBS  ?= $(shell echo $$((2 * $$(nproc))))

# The first Python that is new enough and can make a virtual environment.
PROBE  = import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9; do \
	$$p -c '$(PROBE)' >/dev/null 2>&1 && { command -v $$p; break; }; done)

.DEFAULT_GOAL := help
.PHONY: help venv demo run test test-long test-crash bench bench-quick man sdist rpm lint format clean

help:  ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' $(MAKEFILE_LIST) | awk '{ n = $$1; $$1 = ""; printf "  make %-12s%s\n", n, $$0 }'

venv: $(READY)  ## set up .venv with .venv/bin/vspcd and .venv/bin/vspcctl

$(READY): requirements-dev.txt setup.py pyproject.toml
	@test -n "$(PYTHON)" || { \
		echo "No Python >= 3.9 that can make a virtual environment was found." >&2; \
		echo "On Debian or Ubuntu: apt-get install python3-venv" >&2; \
		echo "Or name one: make venv PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON); this takes about a minute."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(READY)  ## try it: a daemon, a simulated VM with a shell, and three ways on its console
	@$(BIN)/python -m vspcd.demo

run: $(READY)  ## run the daemon in the foreground with conf/vspcd.yaml below .run/
	@$(BIN)/vspcd --config conf/vspcd.yaml --root .run

test: $(READY)  ## run the tests (TESTS=tests/proto for a part of them)
	-@tests/system/fetch-kernel >/dev/null
	@$(BIN)/pytest -n $(JOBS) --dist worksteal $(TESTS)

test-long: $(READY)  ## run all tests, the ones that take minutes too
	-@tests/system/fetch-kernel >/dev/null
	@$(BIN)/pytest -n $(JOBS) --dist worksteal -m '' $(TESTS)

test-crash: $(READY)  ## kill a console's process 1,000 times at each named point (CRASH_KILLS=50 for fewer)
	@$(BIN)/python -m tests.crash

bench: $(READY)  ## measure vspcd beside other console servers, about 25 minutes; the results go to docs/performance.md
	-@$(BIN)/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@$(BIN)/python -m bench --docs docs

bench-quick: $(READY)  ## the same in two minutes, with sizes that give a hint; the results go to build/bench
	@$(BIN)/python -m bench --rounds 1 --many-rounds 1 --seconds 0.3 --vms 100 --idle 3 \
		--only stream-1-off,stream-32-off,stream-1-log,typing,to-log,echo,echo-busy,estate

man: $(READY)  ## write the manual pages into man/, from the options and keys
	@$(BIN)/python man/generate.py

sdist: $(READY)  ## make dist/vspcd-VERSION.tar.gz, which rpmbuild -ta takes as it is
	@rm -f man/*.[158]
	@$(BIN)/python setup.py -q sdist

# On a system without a database of RPMs nothing that is required can be found there, so it is not looked for; Python's
# libraries are taken from .venv, and rpm's own scripts, which its shell may not understand, are left out.
FOREIGN = $(shell rpm -q rpm >/dev/null 2>&1 || echo --nodeps --define "'__python3 $(CURDIR)/$(BIN)/python'" --define "'__os_install_post %{nil}'")

rpm: sdist  ## make the RPMs, below dist/
	@command -v rpmbuild >/dev/null || { echo "rpmbuild is missing: dnf install rpm-build, or apt-get install rpm" >&2; exit 1; }
	@rpmbuild -ta --quiet $(FOREIGN) --define '_topdir $(CURDIR)/build/rpm' --define '_rpmdir $(CURDIR)/dist' \
		--define '_srcrpmdir $(CURDIR)/dist' "dist/vspcd-$$($(BIN)/python setup.py --version).tar.gz"
	@ls dist/*.src.rpm dist/noarch/*.rpm

lint: $(READY)  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY)  ## format the code and mend what lint can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove what was made here
	rm -rf $(VENV) .demo .run build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
