# Two commands: `make labs` to work, `make test` to check everything. `make help` lists the rest.
# PYTHON=/path/to/python3.12 chooses the Python; EXTRAS=test,browser installs more (see pyproject.toml).
# No GNU make above 3.81 is assumed: macOS ships that one.

EXTRAS ?= test
PYTHON ?=
BIN := .venv/bin
INSTALLED := .venv/installed-$(EXTRAS)
PYTEST := $(BIN)/python -m pytest -n 2 -rs --durations=15

.PHONY: help labs test release solutions times bench doctor constraints test-lowest clean

help:
	@sed -n 's/^## //p' Makefile

## make labs         set up, copy the labs that are missing to work/, open JupyterLab there
labs: $(INSTALLED)
	@$(BIN)/python -m helpers.course labs
	cd work && ../$(BIN)/jupyter lab

# One worker per core and one thread each: several times faster than letting every worker use every core.
## make test         set up, then every check and test
test: export OMP_NUM_THREADS := 1
test: $(INSTALLED)
	$(BIN)/ruff check .
	$(PYTEST) --dist=worksteal tests
	LABS_DATA_SOURCE=embedded $(PYTEST) --nbval solutions labs
	@if [ -d "$$LABS_DATA/MNIST/raw" ] && [ -d "$$LABS_DATA/FashionMNIST/raw" ] && \
	[ -d "$$LABS_DATA/PetImages" ]; then \
	[ -d "$$LABS_DATA/weights" ] || without=--ignore-glob='solutions/0[45]*'; \
	set -x; LABS_DATA_SOURCE=real $(PYTEST) --nbval-lax solutions $$without; else echo "Not run on real" \
	"data; name a folder that has MNIST/raw, FashionMNIST/raw and PetImages (and weights/, for labs 04" \
	"and 05): make test LABS_DATA=..."; fi

## make release      write labs/ from solutions/
release: $(INSTALLED)
	$(BIN)/python -m helpers.course release

## make solutions    execute solutions/, store their outputs, then write labs/
solutions: $(INSTALLED)
	$(BIN)/python -m helpers.course refresh
	$(BIN)/python -m helpers.course release

## make times        the same, and measure minutes and memory for the headers
times: $(INSTALLED)
	$(BIN)/python -m helpers.course refresh --times
	$(BIN)/python -m helpers.course release

## make bench        speed and size against the goals
bench: $(INSTALLED)
	$(BIN)/python -m helpers.course bench

## make doctor       say what this machine lacks
doctor: $(INSTALLED)
	$(BIN)/python -m helpers.course doctor

# The stamp is written last, so an interrupted install is taken up again by the next command.
$(INSTALLED): pyproject.toml constraints.txt
	@$(BIN)/python -c 'import sys, pip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	    >/dev/null 2>&1 || { \
	for python in $(or $(PYTHON),python3.13 python3.12 python3.11 python3); do \
	    "$$python" -c \
	        'import sys, ensurepip, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	        >/dev/null 2>&1 && exec "$$python" -m venv --clear .venv; \
	done; \
	echo "This course needs Python 3.11, 3.12 or 3.13 with venv. Install one (python.org, or" \
	    "python3-venv on Debian and Ubuntu), or name yours: make labs PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "Installing into .venv; the first time this downloads several GB."
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

## make constraints  renew constraints.txt within the ranges of pyproject.toml (needs uv)
constraints:
	uv pip compile --universal --upgrade --python-version 3.11 --all-extras --no-annotate --quiet \
	    --no-emit-index-url --no-emit-find-links --output-file constraints.txt \
	    --custom-compile-command "make constraints    (CONTRIBUTING.md says when)" pyproject.toml

# On the oldest Python, in a folder of its own. Planted bugs, other right answers, attacks, exams, the browser
# and long training are no question of versions; the labs run, strictly, and so does grading.
## make test-lowest  tests at the lower end of every range (needs uv, and 8 GB for a while)
test-lowest: export OMP_NUM_THREADS := 1
test-lowest:
	uv venv --quiet --clear --python 3.11 .venv-lowest
	uv pip install --quiet --python .venv-lowest --resolution lowest-direct --editable ".[test]"
	.venv-lowest/bin/python -m pytest -n 2 tests \
	    --ignore=tests/test_planted_bugs.py --ignore=tests/test_browser.py \
	    --ignore=tests/test_right_answers.py --ignore=tests/test_grading_attacks.py \
	    --ignore=tests/test_grading_reduced.py --ignore=tests/test_variant.py \
	    -k "not in_two_epochs and not in_the_browser"
	LABS_DATA_SOURCE=embedded .venv-lowest/bin/python -m pytest -n 2 --nbval solutions
	rm -rf .venv-lowest

## make clean        remove .venv (never touches work/ and data/)
clean:
	rm -rf .venv .venv-lowest
