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
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
else ifdef UV_DEFAULT_INDEX
export PIP_INDEX_URL := $(UV_DEFAULT_INDEX)
endif
export PYTHONPATH := $(CURDIR)

# What checks workflows and history is written in Go: built where there is Go, and its tests skip elsewhere.
GO_TOOLS := $(if $(shell command -v go),.go/.built)

TRAINYARD := $(PY) -m trainyard
# A stack on AWS takes the Pulumi program's environment too.
ON_AWS := $(if $(STACK),.venv-infra/.infra)

## Run it
.PHONY: demo up down status deploy
demo: .venv/.laptop ## train a model end to end: stack up, one deployment run, a summary, down (KEEP=1 leaves it up; DATA= TRAIN= VALID= TRIALS=)
	@$(TRAINYARD) demo $(if $(KEEP),--keep) $(if $(DATA),--data "$(DATA)") $(if $(TRAIN),--train $(TRAIN)) $(if $(VALID),--valid $(VALID)) $(if $(TRIALS),--trials $(TRIALS))

up: .venv/.laptop $(ON_AWS) ## start the laptop stack: Prefect, MLflow, the artifact folder, a worker (STACK= a stack on AWS)
	@$(TRAINYARD) up $(STACK)

down: .venv/.laptop $(ON_AWS) ## stop what `make up` started (STACK= destroys that stack)
	@$(TRAINYARD) down $(STACK)

status: .venv/.laptop $(ON_AWS) ## what runs, and where to look (STACK=)
	@$(TRAINYARD) status $(STACK)

deploy: .venv/.laptop $(ON_AWS) ## register the stack with Prefect, then `prefect deploy --all` (STACK=)
	@$(TRAINYARD) deploy $(STACK)

## Run it on AWS
.PHONY: image publish release rollback smoke bootstrap preview drift doctor cost ui rehearse drills
image: .venv/.laptop ## build, measure and smoke-test the images of flows, worker and MLflow (CPU=arm64; needs Docker)
	@$(TRAINYARD) image $(if $(CPU),--cpu $(CPU))

publish: .venv/.laptop ## the commit's images into the account's registry, each built once; writes .trainyard/release.json (CPU=arm64; needs Docker)
	@$(TRAINYARD) publish $(if $(CPU),--cpu $(CPU))

bootstrap: .venv/.laptop .venv-infra/.infra ## once an AWS account: Pulumi's state, the account's stack (STACK= adds an environment, REPO=owner/name GitHub, and without gh OWNER_ID= REPOSITORY_ID=)
	@$(TRAINYARD) bootstrap $(if $(STACK),--stack $(STACK)) $(if $(REPO),--repository $(REPO)) $(if $(OWNER_ID),--owner-id $(OWNER_ID)) $(if $(REPOSITORY_ID),--repository-id $(REPOSITORY_ID))

preview: .venv/.laptop .venv-infra/.infra .venv-policy/.policy ## what an up would change, and which rules it breaks (STACK=; with BASE=origin/main a pull request's comment)
	@$(TRAINYARD) preview $(STACK) $(if $(BASE),--base $(BASE))

release: .venv/.laptop .venv-infra/.infra ## bring what `make publish` pushed to a stack: up, deployments, a smoke run (STACK=)
	@$(TRAINYARD) release $(STACK)

rollback: .venv/.laptop .venv-infra/.infra ## the same with the release that completed there before (STACK=)
	@$(TRAINYARD) rollback $(STACK)

smoke: .venv/.laptop .venv-infra/.infra ## run the smoke deployment of a stack, and wait for its end (STACK=)
	@$(TRAINYARD) smoke $(STACK)

drift: .venv/.laptop .venv-infra/.infra ## what was changed in AWS by hand (STACK=; ISSUE=1 keeps an issue of it on GitHub)
	@$(TRAINYARD) drift $(STACK) $(if $(ISSUE),--issue)

doctor: .venv/.laptop ## what is wrong here, and what to do (STACK= with that stack, its AWS account and its services)
	@$(TRAINYARD) doctor $(STACK)

cost: .venv-infra/.infra ## dollars a month while nothing trains, by profile and component (STACK= of that stack)
	@.venv-infra/bin/python -W ignore -m infra.estimate.cost $(STACK)

ui: .venv/.laptop ## open a stack's private pages, MLflow and Prefect, through a tunnel (STACK=)
	@$(TRAINYARD) ui $(STACK)

rehearse: .venv/.laptop .venv-infra/.infra ## the whole cloud path on an emulator, from nothing to a trained model and back (PREFECT=cloud; KEEP=1 leaves the stack up; ends a rehearsal that is up; Linux, Docker)
	@$(TRAINYARD) rehearse $(if $(PREFECT),--prefect $(PREFECT)) $(if $(KEEP),--keep)

drills: .venv/.laptop .venv-infra/.infra ## break the rehearsal's stack on purpose, one fault at a time; writes docs/reliability.md (ONLY=name or today, CI's third; KEEP=1)
	@$(TRAINYARD) drills $(if $(KEEP),--keep) $(if $(ONLY),--only $(ONLY))

## Check it
.PHONY: check test lint types bench
check: lint types .venv/.dev ## lint, types and the unit tests: before each commit, under 90 s
	@$(PY) -m pytest -q -m unit $(BESIDE)

# Tests by what they need (pyproject.toml). Those of the emulator take turns on the one that a
# machine has; the others run beside each other.
TIERS ?= unit server $(if $(ALL),docker audit pulumi emulator)
# Most of their time they wait for servers, so there are more of them than cores.
JOBS ?= 3
BESIDE := -n $(JOBS) --dist loadfile
beside = $(subst $() , or ,$(strip $(filter-out emulator,$(TIERS))))
test: .venv/.dev .venv-emulator/.emulator .venv-infra/.infra $(if $(filter emulator,$(TIERS)),.venv-policy/.policy) $(if $(filter audit,$(TIERS)),.venv-checkov/.checkov) $(GO_TOOLS) ## what needs no Docker and no pulumi, in about 8 minutes (ALL=1 every tier that this machine can run, TIERS="docker audit" some, TESTS=tests/infra a folder)
	@beside=5 emulated=5; \
	  $(if $(beside),TIERS="$(TIERS)" $(PY) -m pytest $(BESIDE) -m "$(beside)" $(TESTS); beside=$$?;) \
	  $(if $(filter emulator,$(TIERS)),TIERS="$(TIERS)" $(PY) -m pytest -m emulator $(TESTS); emulated=$$?;) \
	  case $$beside$$emulated in 00|05|50) ;; *) exit 1;; esac # 5: there were none

lint: .venv/.dev ## style, import directions, prefect.yaml, workflows
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/lint-imports --no-cache && $(TRAINYARD) lint \
	  && .venv/bin/zizmor --quiet --offline --persona auditor --strict-collection .github

types: .venv/.dev ## mypy, strict
	@.venv/bin/mypy

bench: .venv/.laptop ## the taxi pipeline against the tutorial's own method (DATA= TRAIN= VALID=)
	@$(PY) -m bench.taxi $(if $(DATA),--data "$(DATA)") $(if $(TRAIN),--train $(TRAIN)) $(if $(VALID),--valid $(VALID))

## Look after it
.PHONY: format generate lock pictures clean help
format: .venv/.dev ## let ruff put the code in shape
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format .

generate: .venv/.dev ## write anew what is generated: Pulumi.yaml's settings, infra/README.md's tables, the tests' golden tables
	@$(PY) -W ignore -m infra.estimate.generate
	@$(PY) -W ignore -m tests.infra.golden

# dev holds nearly all that these smaller groups hold, so they follow its versions
lock: $(UV) ## write requirements/*.txt anew from pyproject.toml (UPGRADE=1 takes newer versions)
	@for group in dev laptop flow mlflow infra policy emulator checkov pictures; do \
	  case $$group in laptop|flow|mlflow|infra) pins="-c requirements/dev.txt";; *) pins="";; esac; \
	  $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	    $(if $(UPGRADE),--upgrade) $$pins --group $$group -o requirements/$$group.txt || exit 1; done
	@echo uv | $(UV) pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
	    $(if $(UPGRADE),--upgrade) - -o requirements/uv.txt

pictures: .venv-pictures/.pictures ## take the README's pictures anew from the running stack (needs Chromium)
	@.venv-pictures/bin/python docs/pictures.py

clean: ## stop the stack and remove what make built and the stack wrote
	@if [ -x $(PY) ]; then $(TRAINYARD) down --quiet; fi
	rm -rf .go .uv .venv .venv-checkov .venv-emulator .venv-infra .venv-policy .venv-pictures .trainyard .mypy_cache .pytest_cache .ruff_cache .hypothesis

help: ## this list
	@awk -F ':.*## ' '/^## /{print "\n" substr($$0, 4)} /^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments -----------------------------------------------------------
# Each stamp is newer than its lock when the environment holds exactly that lock.
$(UV): requirements/uv.txt
	@[ -n "$(PYTHON)" ] || { echo "Trainyard needs Python 3.11 or newer: none of python3.12, python3.13, python3.11, python3 is. Install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@echo "building a private uv in .uv"
	@$(PYTHON) -m venv --clear .uv || { echo "Python's venv module is incomplete (Debian and Ubuntu: apt install python3-venv)"; rm -rf .uv; exit 1; }
	@.uv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@touch $@

.venv/.laptop: requirements/laptop.txt $(UV)
	$(call environment,.venv,laptop)

.venv/.dev: requirements/dev.txt $(UV)
	$(call environment,.venv,dev)

.venv-policy/.policy: requirements/policy.txt $(UV)
	$(call environment,.venv-policy,policy)

.venv-emulator/.emulator: requirements/emulator.txt $(UV)
	$(call environment,.venv-emulator,emulator)

.venv-checkov/.checkov: requirements/checkov.txt $(UV)
	$(call environment,.venv-checkov,checkov)

# the environment that infra/Pulumi.yaml names: `pulumi` runs the program with it
.venv-infra/.infra: requirements/infra.txt $(UV)
	$(call environment,.venv-infra,infra)

.venv-pictures/.pictures: requirements/pictures.txt $(UV)
	$(call environment,.venv-pictures,pictures)

.go/.built: .github/tools/go.sum
	@echo "building actionlint and gitleaks into .go"
	@GOBIN=$(CURDIR)/.go go -C .github/tools install tool && touch $@ || echo "they can't be built here: their tests skip"

define environment
@echo "installing requirements/$(2).txt into $(1)"
@$(UV) venv -q --allow-existing --no-python-downloads --python $(PYTHON) $(1)
@$(UV) pip install -q --python $(1)/bin/python --require-hashes -r requirements/$(2).txt
@touch $@
endef
