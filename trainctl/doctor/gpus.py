"""GPUs: are they there, do driver, kernel module and torch fit together, are they healthy, are they hidden."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from trainctl.doctor import programs
from trainctl.doctor.finding import OK, WARNING, Finding, counted, lines
from trainctl.doctor.programs import Answer
from trainctl.doctor.view import View
from trainctl.launch import slots

MODULE = Path("/proc/driver/nvidia/version")
RESTART = "start the machine anew, so that the kernel loads the module of the new driver"


def check(view: View) -> Iterator[Finding]:
    """What `nvidia-smi` says; only if it answers, the others are asked too."""
    answer = view.nvidia
    if answer is None:
        if MODULE.exists():
            detail = "the driver is loaded, but there is no nvidia-smi on PATH: trainctl will not use the GPUs"
            yield Finding("gpus", WARNING, detail, "install nvidia-smi, or put its folder on PATH")
        else:
            yield Finding("gpus", OK, "none; runs share the cores")
        return
    if not answer.good:
        yield _sick(answer)
        return
    rows = [[part.strip() for part in line.split(",")] for line in answer.text.splitlines()]
    cards = [row for row in rows if len(row) == 5]
    if not cards:
        yield Finding("gpus", OK, "nvidia-smi lists none; runs share the cores")
        return
    names = ", ".join(f"{index} {name}" for index, name, *_ in cards)
    yield Finding("gpus", OK, f"{names}; driver {cards[0][2]}")
    yield from _hidden([(row[0], row[4]) for row in cards])
    yield from _torch()
    yield from _health(view, cards)


def _sick(answer: Answer) -> Finding:
    """Why `nvidia-smi` fails, in its own words."""
    if answer.hung:
        hint = "the driver hangs: look at `dmesg`, end what uses the GPU, else start the machine anew"
        return Finding("gpus", WARNING, answer.text, hint)
    said = next((line.strip() for line in answer.text.splitlines() if line.strip()), f"code {answer.code}")
    if "version mismatch" in answer.text:
        library = re.search(r"NVML library version:\s*([\d.]+)", answer.text)
        module = _module()
        parts = [f"NVML is {library[1]}" if library else "", f"the module is {module}" if module else ""]
        told = f": {', '.join(filter(None, parts))}" if any(parts) else ""
        return Finding("gpus", WARNING, f"the driver and its kernel module differ{told}", RESTART)
    if "communicate with the NVIDIA driver" in answer.text:
        hint = "no kernel module is loaded: install the driver for this kernel, or start the machine anew"
        return Finding("gpus", WARNING, said, hint)
    return Finding("gpus", WARNING, f"nvidia-smi fails: {said}", "runs share the cores until it works again")


def _module() -> str:
    """Version of the loaded kernel module, "" if unknown."""
    try:
        found = re.search(r"Kernel Module(?: for \S+)?\s+([\d.]+)", MODULE.read_text(errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def _hidden(cards: list[tuple[str, str]]) -> Iterator[Finding]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not slots.shown(cards, visible):
        detail = f"CUDA_VISIBLE_DEVICES={visible!r} hides all {counted(len(cards), 'GPU')}"
        more = "unset it, or name GPUs by their numbers: 0,1"
        yield Finding("visible gpus", WARNING, detail, more)


def torch_cuda() -> str | None:
    """The CUDA that torch is built for as "13.0", "" for none, None if it cannot be told; torch is not imported."""
    try:
        file = Path(str(metadata.distribution("torch").locate_file("torch/version.py")))
        text = file.read_text(encoding="utf-8", errors="replace")
    except (metadata.PackageNotFoundError, OSError):
        return None
    found = re.search(r"^cuda\b[^=\n]*=\s*(None|['\"]([\d.]+)['\"])", text, re.MULTILINE)
    return None if found is None else found[2] or ""


def driver_cuda() -> str | None:
    """The newest CUDA that the driver can run, as "12.4"; None if it does not tell. NVML is open already."""
    import pynvml

    try:
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
    except (pynvml.NVMLError, AttributeError):
        return None
    return f"{version // 1000}.{version % 1000 // 10}"


def _torch() -> Iterator[Finding]:
    built, gives = torch_cuda(), driver_cuda()
    if built == "":
        hint = "install torch for CUDA as pytorch.org/get-started says"
        yield Finding("torch and cuda", WARNING, "torch is built without CUDA: runs cannot use the GPUs", hint)
    elif built and gives and int(built.split(".")[0]) > int(gives.split(".")[0]):
        # Within a major version, CUDA runs on older drivers too (NVIDIA: CUDA Compatibility, minor versions).
        detail = f"torch is built for CUDA {built}, the driver gives {gives}"
        hint = f"update the driver, or install torch for CUDA {gives.split('.')[0]}"
        yield Finding("torch and cuda", WARNING, detail, hint)
    elif built:
        fits = f", the driver gives {gives}" if gives else ""
        yield Finding("torch and cuda", OK, f"torch for CUDA {built}{fits}")


def _health(view: View, cards: list[list[str]]) -> Iterator[Finding]:
    """Memory errors that were not corrected, GPUs that are lost, and the driver's last complaint (Xid)."""
    told = [(index, int(errors)) for index, _, _, errors, _ in cards if errors.isdecimal()]  # else "[N/A]"
    each = [f"GPU {index}: {counted(n, 'memory error')} that could not be corrected" for index, n in told if n]
    each += [f"GPU {gpu.number}: {gpu.remark}" for gpu in view.gpus.found if gpu.remark]
    kernel = programs.ask("dmesg")
    if kernel is not None and kernel.good:  # not everybody may read it
        said = [line for line in kernel.text.splitlines() if "NVRM: Xid" in line]
        each += [f"Xid: {line.partition('Xid')[2].strip(' :')}" for line in said[-1:]]
    if each:
        hint = "NVIDIA's list of Xid errors says what each means; a run on such a GPU may be wrong"
        yield Finding("health of gpus", WARNING, lines("not well", each), hint)
