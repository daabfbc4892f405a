# make setup   install everything into .venv (safe to repeat; does nothing when nothing changed)
# make demo    collect demonstrations, train a policy on them, measure it on unseen seeds, write a report
# make test    run the tests             make lint    style, types, import rules
# make clean   remove caches             make distclean   and .venv
#
# PYTHON=python3.12 chooses the interpreter, EXTRAS=all,dev what to install beside the core, TASK=... the demo's task.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= mujoco,pybullet,pusht,aloha,nav,look,lmms,dev
TASK ?= door-open
DEMO ?= runs/quickstart
BIN := $(VENV)/bin
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))
PIP := $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check --constraint constraints.txt
# what rendering without a screen needs: EGL, OpenGL, and Mesa's software renderer
LIBRARIES := libegl1 libgl1 libgl1-mesa-dri

.PHONY: help setup system demo test lint format clean distclean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, and $(PYTHON) is not: name one, as in make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(MAKE) system
	@test -x $(BIN)/python || { echo "Making $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing PyTorch"
	@$(PIP) "$$(grep '^torch==' constraints.txt)"
	@echo "Installing this project with its extras $(EXTRAS)"
	@$(PIP) --editable ".[$(EXTRAS)]"
	@case ",$(EXTRAS)," in *,lmms,*) $(PIP) --no-deps lmms-eval;; esac  # its requirements would replace PyTorch
	@touch $@

# Debian and Ubuntu only: elsewhere, and without the right to install, say what is needed and go on.
system:
	@missing=(); \
	for package in $(LIBRARIES); do \
	  dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q '^install ok installed$$' || missing+=("$$package"); \
	done; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || missing+=("python$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"); \
	if [ $${#missing[@]} -eq 0 ]; then exit 0; fi; \
	if ! command -v apt-get >/dev/null; then \
	  echo "Rendering needs the system libraries libEGL and libGL with a driver (Debian: $${missing[*]}); install them if embodied-doctor asks for them."; exit 0; \
	fi; \
	if [ "$$(id -u)" = 0 ]; then as=(env); elif sudo -n true 2>/dev/null; then as=(sudo); \
	else echo "Not allowed to install system packages. Needed: sudo apt-get install -y $${missing[*]}" >&2; exit 0; fi; \
	echo "Installing $${missing[*]}"; \
	{ "$${as[@]}" apt-get update -qq && "$${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"; } >/dev/null || \
	  echo "apt-get could not install them. Needed: apt-get install -y $${missing[*]}" >&2

demo: setup
	$(BIN)/embodied-collect env=metaworld/$(TASK) episodes=50 seed=0 noise=0.4 out=data/$(TASK)
	$(BIN)/embodied-train experiment=quickstart data.root=data/$(TASK) out=$(DEMO) resume=true
	$(BIN)/embodied-eval policy=$(DEMO) env=metaworld/$(TASK) episodes=50 num_envs=2 seed=10000
	@echo; echo "Open these in a browser:"; ls -1 $(DEMO)/eval/*/report.html $(DEMO)/eval/*/videos/*.mp4 | sed "s|^|  $$PWD/|"

test: setup
	$(BIN)/python -m pytest -n 2 --durations=15

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) *.egg-info
