# Two commands for a newcomer: `make demo` (a clip, no torch) and `make test`. Needs Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/shapes
PYTEST := $(BIN)/python -m pytest
# Chromium's software driver, where there is no GPU; ORT_... lets the WebGPU provider take it.
CHROMIUM ?= /usr/lib/chromium
SOFTWARE_VULKAN := $(if $(wildcard $(CHROMIUM)/vk_swiftshader_icd.json),\
	VK_DRIVER_FILES=$(CHROMIUM)/vk_swiftshader_icd.json \
	VK_ICD_FILENAMES=$(CHROMIUM)/vk_swiftshader_icd.json \
	XDG_RUNTIME_DIR=$(CURDIR)/.venv-devices/run ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1)

.PHONY: demo test check format test-slow test-interop test-devices test-ray test-web test-demo storm cov docs \
	bundle ladder smoke hour wheel apk lock clean

demo: .venv/.demo  ## one clip from the built-in model
	@mkdir -p out
	$(BIN)/hummingbird sample -o out/demo.mp4 --force

test: .venv/.dev  ## the default tests
	$(PYTEST) -q -m "not slow and not storm and not interop and not devices and not display"

check: .venv/.dev  ## lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-slow: .venv/.dev  ## tests that take more than a few seconds each
	$(PYTEST) -q -m "slow and not storm and not interop and not devices and not web and not display"

storm: .venv/.dev  ## fault loops at full count
	$(PYTEST) -q -m storm

test-interop: .venv-interop/.ready  ## optimum, diffusers and OpenVINO on our bundles
	.venv-interop/bin/python -m pytest -q tests/interop

test-devices: .venv-devices/.ready .venv/.dev  ## plug-in providers: WebGPU, OpenVINO, Qualcomm's emulator
	@mkdir -p runs && mkdir -m 700 -p .venv-devices/run
	$(BIN)/hummingbird export build train/checkpoints/shapes-v1/build.json --force -o runs/fixed-bundle \
		--target android-qnn --precision fp16-storage --num-frames 4 --height 64 --width 64
	HUMMINGBIRD_FIXED_BUNDLE=runs/fixed-bundle $(SOFTWARE_VULKAN) \
		.venv-devices/bin/python -m pytest -q -rs -s tests/devices

cov: .venv/.dev  ## branch coverage of the runtime; fails under 90 %
	$(PYTEST) -q -m "not slow and not storm and not interop and not devices and not display" --cov --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=90

docs: .venv/.dev
	$(BIN)/python docs/generate_errors.py
	$(BIN)/mkdocs build --strict --quiet

bundle: .venv/.dev  ## rebuild the built-in bundle from train/checkpoints/
	$(BIN)/hummingbird export build train/checkpoints/shapes-v1/build.json --force \
		-o runtime/hummingbird_runtime/_bundles/shapes-v1

ladder: .venv/.dev  ## judge real clips, the autoencoder and the built-in bundle
	$(BIN)/hummingbird train ladder

define TRAIN
$(BIN)/hummingbird train all train/recipes/$@.toml --run runs/$@
$(BIN)/hummingbird train publish train/recipes/$@.toml --run runs/$@ -o runs/$@-checkpoint --force
$(BIN)/hummingbird export build runs/$@-checkpoint/build.json -o runs/$@-bundle --force
@mkdir -p out
$(BIN)/hummingbird sample --bundle runs/$@-bundle -o out/$@.png --force
endef

smoke: .venv/.dev  ## every training stage, export and a clip, in about three minutes
	$(TRAIN)

hour: .venv/.dev  ## the built-in model's stages but feedback, from nothing, in about an hour
	$(TRAIN)

test-ray: .venv/.dev  ## curation on a local Ray; installs it
	$(BIN)/python -m pip install --quiet --editable ".[ray]"
	$(PYTEST) -q tests/train/curation/test_engines.py tests/faults/test_curation_faults.py -m slow -k ray

test-web: .venv/.dev  ## the browser page in headless Chromium; needs Node.js 20+ and Chromium
	@if command -v npm >/dev/null; then npm ci --prefix mobile_demo/web --no-audit --no-fund; \
	else echo "no npm: tests that need the page's packages are skipped"; fi
	$(PYTEST) -q tests/web

test-demo: .venv/.dev  ## the app in a window off the screen
	$(PYTEST) -q -m display tests/demo

apk: wheel  ## the Android app; AAR=FILE AAR_SHA256=DIGEST of onnxruntime-android; needs buildozer
	test -n "$(AAR)" && test -n "$(AAR_SHA256)"
	cd mobile_demo && HUMMINGBIRD_WHEEL=$$(ls -t $(CURDIR)/dist/*.whl | head -1) \
	  HUMMINGBIRD_AAR=$(abspath $(AAR)) HUMMINGBIRD_AAR_SHA256=$(AAR_SHA256) buildozer android debug

wheel: .venv/.dev
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

lock:  ## remake constraints/*.txt from fresh environments
	$(PYTHON) constraints/lock.py

.venv/.pip:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	@touch $@

.venv/.demo: .venv/.pip pyproject.toml constraints/video.txt
	$(BIN)/python -m pip install --quiet --constraint constraints/video.txt --editable ".[video]"
	@touch $@

.venv/.dev: .venv/.pip pyproject.toml constraints/dev.txt
	$(BIN)/python -m pip install --quiet --constraint constraints/dev.txt --editable ".[dev]"
	@touch $@ .venv/.demo

.venv-devices/.ready: pyproject.toml constraints/devices.txt
	$(PYTHON) -m venv .venv-devices
	.venv-devices/bin/python -m pip install --quiet --upgrade "pip>=24"
	.venv-devices/bin/python -m pip install --quiet --constraint constraints/devices.txt \
		--editable ".[webgpu,openvino,qnn]" pytest hypothesis
	@touch $@

.venv-interop/.ready: pyproject.toml constraints/interop.txt
	$(PYTHON) -m venv .venv-interop
	.venv-interop/bin/python -m pip install --quiet --upgrade "pip>=24"
	.venv-interop/bin/python -m pip install --quiet --constraint constraints/interop.txt torch
	.venv-interop/bin/python -m pip install --quiet --constraint constraints/interop.txt --editable ".[interop]" pytest hypothesis
	@touch $@

clean:
	rm -rf .venv .venv-interop .venv-devices dist build site out .pytest_cache .mypy_cache .ruff_cache .hypothesis
