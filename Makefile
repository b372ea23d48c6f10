# make figures [SCALE=tiny] [STUDY=quantization] [FROM=tables] · make test · make lab · make faults · each sets up what it needs
PYTHON ?= python3
VENV ?= .venv
SCALE ?=
STUDY ?=
FROM ?=
# Named after what it installed: another pyproject or lock installs again, a mere checkout does not.
READY := $(VENV)/.ready-$(shell cat pyproject.toml requirements.lock | cksum | cut -d' ' -f1)
export PATH := $(abspath $(VENV))/bin:$(PATH)

.PHONY: setup figures test lab faults

setup: $(READY)

$(READY):
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'error: Python 3.11 or newer is needed (make PYTHON=python3.12 …), this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
	pip install --quiet -c requirements.lock -e ".[test]"
	rm -f $(VENV)/.ready-*
	touch $@

figures: setup
	compendium figures $(if $(SCALE),--scale $(SCALE)) $(if $(STUDY),--study $(STUDY)) $(if $(FROM),--from $(FROM))

test: setup
	python -m pytest

lab: setup
	compendium prepare --scale laptop
	jupyter lab notebooks

faults: setup
	python tests/faults.py
