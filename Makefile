# Trainyard's vocabulary: `make help` explains each word.
# On a fresh machine it needs Python 3.11+ and a package index; everything else it installs into this folder.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first of these that is Python 3.11 or newer.
PYTHON ?= $(shell for p in python3.12 python3.13 python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
UV := .uv/bin/uv
PY := .venv/bin/python
# uv and pip share the index that the machine is set up for
INDEX := $(or $(PIP_INDEX_URL),$(UV_DEFAULT_INDEX),$(UV_INDEX_URL))
ifdef INDEX
export PIP_INDEX_URL ?= $(INDEX)
export UV_DEFAULT_INDEX ?= $(INDEX)
endif
export PYTHONPATH := $(CURDIR)

# What checks workflows and history is written in Go: built where there is Go, and its tests skip elsewhere.
GO_TOOLS := $(if $(shell command -v go),.go/.built)

# Variables that were given to make: the command that they are for reads them, and knows which it takes.
GIVEN := $(strip $(foreach v,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $v))),$v)))
TRAINYARD = TRAINYARD_GOALS="$(MAKECMDGOALS)" TRAINYARD_GIVEN_TO_MAKE="$(filter-out PYTHON,$(GIVEN))" $(PY) -m trainyard
# What a command starts, such as a test that types `make`, isn't given them.
unexport MAKEFLAGS MAKEOVERRIDES
# A stack on AWS takes the Pulumi program's environment too.
ON_AWS := $(if $(STACK),.venv-infra/.infra)

FORWARDED := demo up down status deploy backfill serve image publish bootstrap preview release rollback smoke drift doctor cost ui rehearse drills
OWN := bench check test lint types format generate lock pictures clean help
# What make reads of them itself.
check_takes := JOBS
test_takes := ALL TIERS TESTS JOBS
lock_takes := UPGRADE
ASKED := $(or $(MAKECMDGOALS),help)
UNKNOWN := $(strip $(foreach word,$(ASKED),$(if $(or $(findstring /,$(word)),$(filter $(word),$(FORWARDED) $(OWN) $(MORE))),,$(word))))
$(if $(UNKNOWN),$(error make has no word `$(UNKNOWN)`: `make help` lists them (a stack is given as STACK=$(firstword $(UNKNOWN)))))
# Of several words another one may take it.
REFUSED := $(if $(filter 1,$(words $(ASKED))),$(if $(filter $(ASKED),$(filter-out bench,$(OWN))),$(filter-out PYTHON $($(ASKED)_takes),$(GIVEN))))
$(if $(REFUSED),$(error `make $(ASKED)` takes $(or $($(ASKED)_takes:%=%=),no variable), not $(REFUSED:%=%=)))
.PHONY: $(FORWARDED)
$(FORWARDED):
	@$(TRAINYARD) $@

## Run it
demo: .venv/.laptop ## train a model end to end: stack up, one deployment run, a summary, down
up: .venv/.laptop $(ON_AWS) ## start the laptop stack, or bring a stack on AWS to what its settings say (STACK=)
down: .venv/.laptop $(ON_AWS) ## stop the laptop stack, or destroy a stack on AWS (STACK=)
status: .venv/.laptop $(ON_AWS) ## show what runs, and where to look (STACK=)
deploy: .venv/.laptop $(ON_AWS) ## register the stack with Prefect, then `prefect deploy --all` (STACK=)
backfill: .venv/.laptop $(ON_AWS) ## run a deployment once for each month of a range, a few at a time (STACK=)
serve: .venv/.laptop ## answer over HTTP with a registered model, on this laptop, until Ctrl-C

## Run it on AWS
image: .venv/.laptop ## build, measure and smoke-test the images of flows, worker and MLflow
publish: .venv/.laptop ## push the commit's images to the account's registry, each built once
release: .venv/.laptop .venv-infra/.infra ## bring what `publish` pushed to a stack: up, deployments, a smoke run (STACK=)
rollback: .venv/.laptop .venv-infra/.infra ## take a stack back to the release that completed there before (STACK=)
smoke: .venv/.laptop .venv-infra/.infra ## run the smoke deployment of a stack, and wait for its end (STACK=)
bootstrap: .venv/.laptop .venv-infra/.infra ## make what an AWS account has once: Pulumi's state, the stack `account` (STACK=)
preview: .venv/.laptop .venv-infra/.infra .venv-policy/.policy ## show what an `up` would change, and which rules of infra/policy it breaks (STACK=)
drift: .venv/.laptop .venv-infra/.infra ## show what was changed in AWS by hand (STACK=)
doctor: .venv/.laptop ## say what is wrong here, and what to do (STACK=)
cost: .venv/.laptop .venv-infra/.infra ## say what a stack costs a month while nothing trains, by component (STACK=)
ui: .venv/.laptop .venv-infra/.infra ## open a stack's private pages, MLflow and Prefect, through a tunnel (STACK=)
rehearse: .venv/.laptop .venv-infra/.infra ## rehearse the whole cloud path on an emulator, from nothing to a trained model and back
drills: .venv/.laptop .venv-infra/.infra ## break the rehearsal's stack on purpose, one fault at a time; writes docs/reliability.md

## Check it
.PHONY: check test lint types bench
check: lint types .venv/.dev ## lint, types and the unit tests: before each commit, under 90 s
	@$(PY) -m pytest -q -m unit $(BESIDE)

# Tests by what they need (pyproject.toml). Those of the emulator take turns on the one that a
# machine has; the others run beside each other.
TIERS ?= unit server $(if $(ALL),docker audit pulumi emulator)
# Most of their time they wait for servers, so there are more of them than cores.
JOBS ?= 3
BESIDE := -n $(JOBS)
beside = $(subst $() , or ,$(strip $(filter-out emulator,$(TIERS))))
test: .venv/.dev .venv-dvc/.dvc .venv-emulator/.emulator .venv-infra/.infra $(if $(filter emulator,$(TIERS)),.venv-policy/.policy) $(if $(filter audit,$(TIERS)),.venv-checkov/.checkov) $(GO_TOOLS) ## what needs no Docker and no pulumi, in about 10 minutes (ALL=1 every tier that this machine can run, TIERS="docker audit" some, TESTS=tests/infra a folder)
	@beside=5 emulated=5; \
	  $(if $(beside),TIERS="$(TIERS)" $(PY) -m pytest $(BESIDE) -m "$(beside)" $(TESTS); beside=$$?;) \
	  $(if $(filter emulator,$(TIERS)),TIERS="$(TIERS)" $(PY) -m pytest -m emulator $(TESTS); emulated=$$?;) \
	  case $$beside$$emulated in 00|05|50) ;; *) exit 1;; esac # 5: there were none

lint: .venv/.dev ## style, import directions, prefect.yaml, workflows
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/lint-imports --no-cache && $(PY) -m trainyard lint \
	  && .venv/bin/zizmor --quiet --offline --persona auditor --strict-collection .github

types: .venv/.dev ## mypy, strict
	@.venv/bin/mypy

bench: .venv/.laptop ## the taxi pipeline against the tutorial's own method, as ratios
	@$(TRAINYARD:trainyard=bench)

## Look after it
.PHONY: format generate lock pictures clean help
format: .venv/.dev ## let ruff put the code in shape
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format .

SNAPSHOTS := tests/infra/test_golden.py tests/trainyard/prefect/test_work_pool.py
generate: .venv/.dev .venv-emulator/.emulator ## write anew what is generated: Pulumi.yaml's settings, infra/README.md's tables, the tests' snapshots
	@$(PY) -W ignore -m infra.estimate.generate
	@$(PY) -m pytest -q --snapshot-update $(SNAPSHOTS)

# dev holds nearly all that these smaller groups hold, so they follow its versions
lock: $(UV) ## write requirements/*.txt anew from pyproject.toml (UPGRADE=1 takes newer versions)
	$(call try,for group in dev laptop flow mlflow infra policy emulator checkov dvc; do \
	  case $$group in (laptop|flow|mlflow|infra) pins="-c requirements/dev.txt";; (*) pins="";; esac; \
	  $(COMPILE) $$pins --group $$group -o requirements/$$group.txt || exit 1; done)
	$(call try,echo uv | $(COMPILE) - -o requirements/uv.txt)

COMPILE = $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

pictures: .venv/.dev ## take the README's pictures anew from the running stack (needs Chromium)
	@$(PY) docs/pictures.py

clean: ## stop the stack and remove what make built and the stack wrote
	@if [ -x $(PY) ]; then $(PY) -m trainyard down --quiet; fi # the laptop's, whatever STACK is
	rm -rf .go .uv .venv .venv-checkov .venv-dvc .venv-emulator .venv-infra .venv-policy .trainyard .mypy_cache .pytest_cache .ruff_cache .hypothesis

help: ## this list; `.venv/bin/trainyard COMMAND --help` says more of those that operate a stack
	@awk -F ':.*## ' '/^## /{print "\n" substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments -----------------------------------------------------------
# Each stamp is newer than its lock when the environment holds exactly that lock.
$(UV): requirements/uv.txt
	$(python_found)
	@echo "building a private uv in .uv"
	$(call try,$(PYTHON) -m venv --clear .uv)
	$(call try,.uv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt)
	@touch $@

.venv/.laptop: requirements/laptop.txt $(UV)
	$(call environment,.venv,laptop)
	$(front_door)

.venv/.dev: requirements/dev.txt $(UV)
	$(call environment,.venv,dev)
	$(front_door)

.venv-policy/.policy: requirements/policy.txt $(UV)
	$(call environment,.venv-policy,policy)

.venv-emulator/.emulator: requirements/emulator.txt $(UV)
	$(call environment,.venv-emulator,emulator)

.venv-checkov/.checkov: requirements/checkov.txt $(UV)
	$(call environment,.venv-checkov,checkov)

# what flows/iris calls
.venv-dvc/.dvc: requirements/dvc.txt $(UV)
	$(call environment,.venv-dvc,dvc)

# the environment that infra/Pulumi.yaml names: `pulumi` runs the program with it
.venv-infra/.infra: requirements/infra.txt $(UV)
	$(call environment,.venv-infra,infra)

.go/.built: .github/tools/go.sum
	@echo "building actionlint and gitleaks into .go"
	@GOBIN=$(CURDIR)/.go go -C .github/tools install tool && touch $@ || echo "they can't be built here: their tests skip"

define environment
$(python_found)
@echo "installing requirements/$(2).txt into $(1)"
$(call try,$(UV) venv -q --allow-existing --no-python-downloads --python '$(PYTHON)' $(1))
$(call try,$(UV) pip install -q --python $(1)/bin/python --require-hashes -r requirements/$(2).txt)
@touch $@
endef

define python_found
@[ -n "$(PYTHON)" ] || { echo "Trainyard needs Python 3.11 or newer: none of python3.12, python3.13, python3.11, python3 is. Install one, or name it: make PYTHON=/path/to/python"; exit 1; }
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
  || { echo "PYTHON=$(PYTHON) is no Python 3.11 or newer that runs here: correct it, or leave PYTHON away, and make looks for one"; exit 1; }
endef

# Installers end in many lines, and not in the cause. A full disk may cut even these short: so it is tried.
INDEX_SETTINGS := UV_DEFAULT_INDEX UV_INDEX_URL UV_INDEX PIP_INDEX_URL UV_OFFLINE HTTPS_PROXY https_proxy HTTP_PROXY http_proxy ALL_PROXY all_proxy
define try
@said=$$($(1) 2>&1) || { \
  ours="$$(head -c 1000000 /dev/zero 2>&1 >.make-probe)"; rm -f .make-probe; \
  case "$$said$$ours" in \
  *"No space left"*|*"quota exceeded"*) printf '%s\n' "$$said" | tail -n 3; \
    echo "The disk is full: df -h . $${TMPDIR:-/tmp} $${UV_CACHE_DIR:-$$HOME} shows which. Make room (2 GB are enough), and try again.";; \
  *"from versions: none"*|*"Failed to fetch"*|*"error sending request"*) \
    printf '%s\n' "$$said" | grep -v "No matching\|satisfies the" | tail -n 1; \
    echo "No package index answers as it should. Set in this shell: $(or $(strip $(foreach v,$(INDEX_SETTINGS),$(if $(filter environment command,$(firstword $(origin $(v)))),$(v)))),none of these). An index of your own is named by UV_DEFAULT_INDEX or PIP_INDEX_URL, a proxy by HTTPS_PROXY.";; \
  *ensurepip*) echo "Python's venv module is incomplete (Debian and Ubuntu: apt install python3-venv)";; \
  *) printf '%s\n' "$$said";; esac; exit 1; } >&2
endef

define front_door
@printf '%s\n' '#!/bin/sh' 'here=$$(dirname "$$(readlink -f "$$0")")' \
  'PYTHONPATH="$$here/../.." exec "$$here/python" -P -m trainyard "$$@"' > .venv/bin/trainyard
@chmod +x .venv/bin/trainyard
endef
