# make demo, make test and so on work on a fresh machine: they make the environment first. See README.md.
PYTHON ?= python3
BIN := .venv/bin

# A process for each processor, up to four, and a thread in each.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4
DEMO := runs/demo

.PHONY: demo figures test lint clean

.venv/installed: requirements.txt requirements-test.txt build-constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13) and "Python 3.10 to 3.13 is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	PIP_CONSTRAINT=build-constraints.txt PIP_BUILD_CONSTRAINT=build-constraints.txt $(BIN)/pip install -r requirements-test.txt
	touch $@

demo: .venv/installed
	$(BIN)/python -m standin data/standin --per-cell 40 --size 64
	$(BIN)/python classification_net.py --data data/standin --run $(DEMO)/stage1 --image-size 64 --epochs 3 --resume
	$(BIN)/python train.py --stage1 $(DEMO)/stage1 --run $(DEMO)/stage2 --epochs 8 --lr 0.004 --resume
	$(BIN)/python -m retrieval.evaluate $(DEMO)/stage1 $(DEMO)/stage2
	@echo "Distance in $(DEMO)/stage2 means style: the table above and the pictures in $(DEMO)/*/evaluation show how well."
	@echo "Your own pictures, in folders DIR/<style>/<content>/:  $(BIN)/python classification_net.py --data DIR"

figures: demo
	$(BIN)/python -m standin --sheet images/BAM_sample.png --seed 8
	$(BIN)/python -c 'from PIL import Image; [Image.open(f"$(DEMO)/{stage}/evaluation/{name}.png").convert("RGB").quantize( \
	    dither=Image.Dither.NONE).save(f"images/{name}_{after}.png", optimize=True) for name in ("tsne", "retrieval") \
	    for stage, after in (("stage1", "classification"), ("stage2", "triplet"))]'

test: .venv/installed lint
	$(PYTEST)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf .venv
