# make reproduce   sets everything up, then makes every table and figure (config.yaml says which, and at which size)
# make test        sets everything up, then runs the tests (ten minutes on two cores)
# make test-fast   runs only the fast tests: for every commit (two minutes)
# make test-slurm  tests the workflow on a SLURM that it starts on this machine (root, Debian or Ubuntu; five minutes)
# make snapshot    puts the results of the last quick run into docs/results and the README
#                  (with ARGS="--other-code maze" the results of maze may be of another commit)
# make docs        builds the documentation site in site/, and fails if a link or a name is broken
# make dist        builds wheel and sdist in dist/
# make lint        checks style, types and the workflow
# make setup       sets everything up and runs nothing
# make clean-venv  removes the environment; the next call sets it up again
#
# PYTHON=python3.12 uses another interpreter. ARGS="..." is passed on: make reproduce ARGS="--config size=smoke".
PYTHON ?= python3
ARGS ?=
PIP = .venv/bin/python -m pip --disable-pip-version-check -qq

# The stamp has the folder in its name, so that a clone that was moved or copied is set up again.
STAMP := .venv/set-up-$(shell printf '%s' '$(CURDIR)' | cksum | cut -d' ' -f1)

define CHECK
import platform, sys
found = "Python {}.{} on {} {}".format(*sys.version_info[:2], platform.system(), platform.machine())
if not ((3, 11) <= sys.version_info[:2] <= (3, 13) and found.endswith("Linux x86_64")):
    sys.exit("requirements.lock is for Python 3.11 to 3.13 on Linux x86_64; $(PYTHON) is " + found + ". For another"
             " Python: make PYTHON=python3.11. For another system: pip install -e '.[dev]' and then snakemake.")
endef
export CHECK

.PHONY: setup reproduce test test-fast test-slurm docs dist lint snapshot clean-venv

setup: $(STAMP)

reproduce: $(STAMP)
	.venv/bin/snakemake --cores all $(ARGS)

test: $(STAMP)
	.venv/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

test-fast: $(STAMP)
	.venv/bin/python -m pytest -n 2 --dist worksteal -m 'not slow and not full' $(ARGS)

test-slurm: $(STAMP)
	@$(PIP) install --no-deps -r requirements-slurm.lock
	LEAPWARP_TEST_SLURM=1 .venv/bin/python -m pytest tests/workflow/test_slurm.py $(ARGS)

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --strict --quiet

dist: $(STAMP)
	rm -rf dist
	.venv/bin/python -c "from setuptools.build_meta import build_sdist, build_wheel as w; build_sdist('dist'); w('dist')"

lint: $(STAMP)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/snakefmt --check Snakefile workflow
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/snakemake --lint

snapshot: $(STAMP)
	.venv/bin/python -m leapwarp.report.snapshot --folder results/quick --size-file workflow/sizes/quick.yaml --out docs/results --readme README.md --verdicts docs/verdicts.md --keep overnight width64 $(ARGS)

clean-venv:
	rm -rf .venv

# An environment with a stamp is complete, and is updated in place. Any other is made again. Packages are compiled on all
# cores at once, which pip would do on one. Some contain files that are no Python, which are passed over.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Needed: Python 3.11 to 3.13, for example make PYTHON=python3.11." >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK"
	@echo "Setting up .venv: some minutes and 6 GB, once."
	@if [ -e $@ ]; then rm $@; else rm -rf .venv && $(PYTHON) -m venv .venv; fi
	@$(PIP) install --no-deps --no-compile -r requirements.lock
	@.venv/bin/python -m compileall -qq -j 0 .venv/lib >/dev/null || true
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
