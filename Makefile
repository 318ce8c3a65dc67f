# The commands of a working day; CI runs .ci/run.
.PHONY: run test lint types format

run:
	python -m realtime

test:
	pytest

lint:
	ruff check . && ruff format --check .

types:
	mypy

format:
	ruff check --fix . && ruff format .
