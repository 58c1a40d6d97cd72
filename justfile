# The commands that CONTRIBUTING names. `just` alone lists them; `pipx install rust-just` has it.

python := ".venv/bin/python"

_list:
    @just --list --unsorted

# An environment with all that the tests need
install python3="python3":
    {{python3}} -m venv .venv
    .venv/bin/pip install -q -c constraints.txt -e '.[test]'

# What is quick: lint, types, layers, the house
check:
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    .venv/bin/lint-imports
    .venv/bin/pytest -q tests/test_house.py tests/unit/test_docs.py

# The docs' sentences and words. just prose docs/limits.md
prose *pages:
    scripts/lint-prose {{pages}}

# Writes code as ruff wants it
format:
    .venv/bin/ruff check --fix .
    .venv/bin/ruff format .

# Tests beside one another; --all: with the slow ones. just test tests/unit/engine
test *what:
    .venv/bin/pytest -q -n auto --dist loadfile {{what}}

# Whole daemons in virtual time. just simulate --seeds 1:300; just simulate --trace 117
simulate *what:
    {{python}} -m tests.simulation {{what}}

# All that has to pass, on every Python that is here
ci:
    bash .ci/run

# The parts of docs/ that programs make: outputs of commands, the API's reference, schemas
docs:
    {{python}} -m scripts.docs

# The site, checked: every page, link and anchor
site *options:
    scripts/site {{options}}

# Wheel, sdist, list of parts, without tests and without a tag
build:
    scripts/release --skip-tests

# requirements.lock, from pyproject.toml and constraints.txt
lock:
    head -n 2 requirements.lock > requirements.lock.new
    "$(scripts/tools release)/uv" pip compile -q pyproject.toml --extra postgres --universal --python-version 3.11 -c constraints.txt \
        --generate-hashes --no-annotate --no-header >> requirements.lock.new
    mv requirements.lock.new requirements.lock

# What is in deploy/ and .github/, by the schemas of those who read it
deploy:
    scripts/check-deploy

# Known vulnerabilities of what is installed beside the daemon
audit:
    scripts/audit

# The package for Debian 13, in dist/
deb:
    scripts/build-deb

# Each way of installing, from an empty Debian 13, as root
try-installation *ways:
    scripts/try-installation {{ways}}
