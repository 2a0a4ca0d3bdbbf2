# The two commands:   make book   make test
#
#   PYTHON=python3.12                                      which Python makes the .venv (3.11 or newer)
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu       take PyTorch from another index (here: no CUDA)
#   JOBS=2                                                 notebooks, and test workers, at once
#   EXTRAS="bm3d ray"                                      also install requirements-bm3d.txt and requirements-ray.txt
#   B2G_BUDGET=smoke                                       make book with the least computation

PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= 2
EXTRAS ?=

# Notebooks run side by side, so each takes one thread.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= $(OMP_NUM_THREADS)

BIN := .venv/bin
PINS := requirements.txt $(EXTRAS:%=requirements-%.txt)
nothing :=
space := $(nothing) $(nothing)
# One file, .venv/.installed-bm3d-ray, in whichever order the extras are named.
INSTALLED := .venv/.installed$(subst $(space),,$(patsubst %,-%,$(sort $(EXTRAS))))
FIRST := _build/first/chelsea-denoised.png
NOTEBOOKS := $(wildcard book/*.ipynb)

.PHONY: book test install notebooks page clean
.DELETE_ON_ERROR:

book: $(INSTALLED) $(FIRST)
	@echo "== notebooks =="
	@$(BIN)/python tools/notebooks.py execute --jobs $(JOBS)
	@echo "== pages =="
	@$(BIN)/python tools/notebooks.py stage
	@$(BIN)/jupyter-book build _build/book --config _config.yml --path-output . -n -W --keep-going -q >/dev/null \
	    || { rm -rf _build/.doctrees; echo "The pages have the warnings above, and each counts as an error."; exit 1; }
	@echo "The book is made. Open file://$(abspath _build/html/index.html)"

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup
	$(if $(NOTEBOOKS),B2G_BUDGET=smoke $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --nbval-lax \
	    --nbval-current-env --nbval-cell-timeout 600 -p no:warnings $(NOTEBOOKS))

install: $(INSTALLED)

$(INSTALLED): $(PINS) pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
	    || { echo "Python 3.11 or newer is needed: name one with make PYTHON=python3.12."; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null \
	    || { echo "$(PYTHON) cannot make virtual environments: on Debian or Ubuntu, apt install python3-venv."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --index-url $(TORCH_INDEX) $(shell grep '^torch==' requirements.txt))
	$(BIN)/pip install $(PINS:%=-r %)
	$(BIN)/pip install --no-deps --no-build-isolation --editable .
	@touch $@

# A first picture: a photograph that scikit-image carries, made noisy, denoised, and scored.
$(FIRST): $(INSTALLED) $(shell find b2g -name '*.py')
	@mkdir -p $(@D)
	@echo "== a first picture =="
	OMP_NUM_THREADS=$(JOBS) $(BIN)/b2g denoise skimage/chelsea --noise gaussian:25 --profile smoke --output $@

# Write the executed outputs into the tracked notebooks.
notebooks: $(INSTALLED)
	@$(BIN)/python tools/notebooks.py execute --jobs $(JOBS)
	@$(BIN)/python tools/notebooks.py refresh

# One page by itself, for its author: make page NB=masks
page: $(INSTALLED)
	@$(BIN)/python tools/notebooks.py execute $(NB)
	@$(BIN)/python tools/notebooks.py preview $(NB)
	@$(BIN)/jupyter-book build _build/preview/$(NB) --config _config.yml --path-output _build/preview/$(NB)-page -n -q >/dev/null
	@echo "Open file://$(abspath _build/preview/$(NB)-page/_build/html/$(NB).html)"

clean:
	rm -rf _build .pytest_cache
