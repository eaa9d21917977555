# make demo, make test and so on work on a fresh machine: they make the environment first. See README.md.
PYTHON ?= python3
BIN := .venv/bin

# A process for each processor, up to four, and a thread in each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
DEMO := --data data/demo --resume

.PHONY: demo figures test test-all lint clean

.venv/installed: requirements.txt requirements-test.txt build-constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and "Python 3.10 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt $(BIN)/pip install -r requirements-test.txt
	touch $@

demo: .venv/installed
	$(BIN)/python demo.py data/demo --per-cell 16
	$(BIN)/python classification_net.py $(DEMO) --run runs/demo/stage1 --image-size 96 --epochs 10
	$(BIN)/python train.py $(DEMO) --stage1 runs/demo/stage1 --run runs/demo/stage2 --epochs 5
	$(BIN)/python evaluate.py runs/demo/stage1 runs/demo/stage2
	@echo
	@echo "What came out: distance in runs/demo/stage2 means style; the table above has the numbers, and"
	@echo "runs/demo/*/evaluation the pictures. Search with it: $(BIN)/python search.py runs/demo/stage2 PICTURE --data data/demo"
	@echo "On your own pictures, in folders DIR/<style>/<content>/:"
	@echo "    $(BIN)/python classification_net.py --data DIR && $(BIN)/python train.py --data DIR"

figures: demo
	$(BIN)/python demo.py --sheet images/demo.png --seed 3
	$(BIN)/python figures.py --runs runs/demo --out images

test: .venv/installed lint
	$(PYTEST)

test-all: .venv/installed lint
	$(PYTEST) -m "slow or not slow"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv
