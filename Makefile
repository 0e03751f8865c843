# Every target sets up what it needs, once, in .venv; nothing has to be sourced.
#   make PYTHON=/usr/bin/python3.12 ...   another interpreter (3.11 or later)
#   make test TORCH_INDEX=URL             where pip looks for torch besides PyPI; TORCH_INDEX= for
#                                         PyPI alone. By default PyTorch's CPU index on a machine
#                                         without an NVIDIA driver, when it answers.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PYTHON ?=
TORCH_INDEX ?= auto
PYTEST_ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check

# One domain per run, and nothing leaves this machine. AMENT_PREFIX_PATH: the wheels' own prefix.
ROS_ENV = ROS_DOMAIN_ID=$${ROS_DOMAIN_ID:-$$(( $$$$ % 90 + 10 ))} ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST \
	AMENT_PREFIX_PATH=$(CURDIR)/$(VENV)

MESSAGE_FILES := latentvla_msgs/CMakeLists.txt latentvla_msgs/package.xml \
	$(wildcard latentvla_msgs/msg/*.msg latentvla_msgs/srv/*.srv)

.PHONY: help demo test lint bench train-nano setup setup-training colcon clean
.DEFAULT_GOAL := help

help:  ## this text
	@echo "LatentVLA for ROS 2. Targets:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 | \2/p' $(firstword $(MAKEFILE_LIST)) | column -t -s'|' 2>/dev/null \
		|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1: \2/p' $(firstword $(MAKEFILE_LIST))

demo: setup  ## replay the shipped bag through the real nodes; table, video and page in out/demo
	@$(ROS_ENV) $(BIN)/latentvla demo

# What talks over DDS or plays in real time has the machine for itself; the rest share its cores.
PYTEST = OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest
TOGETHER := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: setup-training  ## all tests; leaves the training environment ready (PYTEST_ARGS=...)
	@export $(ROS_ENV); $(if $(PYTEST_ARGS),$(PYTEST) $(PYTEST_ARGS),alone=0; \
		$(PYTEST) -m 'ros or real_time' || alone=$$?; \
		$(PYTEST) -m 'not (ros or real_time)' $(TOGETHER) && exit $$alone)

lint: setup-training  ## ruff on everything, mypy --strict on latentvla_ros
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: setup  ## CPU time per plan of the backend and of the whole node
	@mkdir -p out
	@$(ROS_ENV) $(BIN)/latentvla bench --bundle nano --json out/bench.json

train-nano: setup-training  ## make the data, train the host of nano and its blank twin, evaluate both (out/host)
	@sh scripts/train_nano.sh $(BIN)

setup: $(STAMPS)/messages  ## what the car needs: ROS 2, ONNX Runtime, our messages; no torch

setup-training: $(STAMPS)/training  ## setup, and what training and the tests need

colcon: setup-training  ## both packages with colcon, into build/, install/ and log/
	@AMENT_PREFIX_PATH=$(CURDIR)/$(VENV) CMAKE_PREFIX_PATH=$(CURDIR)/$(VENV) PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(BIN)/python -m colcon build --base-paths . latentvla_msgs \
		--cmake-args -DPython3_EXECUTABLE=$(CURDIR)/$(BIN)/python -DBUILD_TESTING=OFF

clean:  ## remove everything made here but data/ and runs/
	rm -rf $(VENV) build install log out

$(STAMPS)/venv:
	@python=$$(sh scripts/check_tools.sh $(PYTHON) | tail -n 1) && [ -n "$$python" ] \
		&& { $(BIN)/python -m pip --version >/dev/null 2>&1 || "$$python" -m venv --clear $(VENV); } \
		&& $(PIP) install -qq -c constraints.txt 'setuptools<80' && mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: $(STAMPS)/venv setup.py constraints.txt
	@echo "Installing the onboard package and ROS 2 into $(VENV) ..."
	@$(PIP) install -qq -c constraints.txt --no-build-isolation -e '.[ros,demo]'
	@touch $@

$(STAMPS)/messages: $(STAMPS)/runtime $(MESSAGE_FILES) scripts/build_messages.sh
	@echo "Building latentvla_msgs (half a minute) ..."
	@mkdir -p build
	@sh scripts/build_messages.sh $(VENV) build/messages >build/messages.log 2>&1 \
		|| { tail -n 30 build/messages.log; echo "The whole log: build/messages.log"; exit 1; }
	@touch $@

$(STAMPS)/training: $(STAMPS)/messages training/pyproject.toml scripts/torch_index.sh
	@echo "Installing the training package, torch and the test tools into $(VENV) ..."
	@$(PIP) install -qq -c constraints.txt $$(sh scripts/torch_index.sh '$(TORCH_INDEX)' $(BIN)/python) \
		--no-build-isolation -e '.[test]' -e training
	@touch $@
