"""The GPUs and how loaded they are, from NVIDIA's management library (NVML): asking it starts no process.

What a GPU does not tell (a divided one, an old one) is None. What is wrong with one, or why there is none, is said in
words; nothing here raises.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NO_DRIVER = "no GPU: there is no NVIDIA driver here"


@dataclass(frozen=True)
class Gpu:
    """One GPU. `number` is that of nvidia-smi; load is percent, memory bytes, temperature °C, power W.

    `processes` are pids with the memory that each holds, None where the driver does not tell it.
    """

    number: str
    name: str = ""
    load: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    temperature: int | None = None
    power: float | None = None
    processes: tuple[tuple[int, int | None], ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Gpus:
    """All of them; `why` says why there is none to show."""

    found: tuple[Gpu, ...] = ()
    why: str = ""

    def memory_of(self, pids: frozenset[int]) -> int | None:
        """Bytes that these processes hold on all GPUs; None if they use none, or it is not told."""
        held = [memory for gpu in self.found for pid, memory in gpu.processes if pid in pids]
        known = [memory for memory in held if memory is not None]
        return sum(known) if known else None


class Nvml:
    """The library, opened at the first look. It is never shut down: the driver frees it with the process."""

    def __init__(self, library: Any = None) -> None:
        self._library = library
        self._why: str | None = None  # None until it was opened, "" once it was

    def look(self) -> Gpus:
        """How the GPUs are loaded now."""
        if self._why is None:
            self._why = self._open()
        if self._why:
            return Gpus(why=self._why)
        nvml = self._library
        try:
            count = nvml.nvmlDeviceGetCount()
        except nvml.NVMLError as error:
            return Gpus(why=f"the GPUs cannot be asked: {error}")
        return Gpus(tuple(self._gpu(number) for number in range(count)), "" if count else "no GPU")

    def _open(self) -> str:
        """Why it cannot be used, or ""."""
        if self._library is None:
            import pynvml

            self._library = pynvml
        nvml = self._library
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            absent = (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
            return NO_DRIVER if error.value in absent else f"the GPUs cannot be asked: {error}"
        return ""

    def _gpu(self, number: int) -> Gpu:
        nvml = self._library
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(number)
            name = nvml.nvmlDeviceGetName(handle)
            memory = self._told(nvml.nvmlDeviceGetMemoryInfo, handle)
            load = self._told(nvml.nvmlDeviceGetUtilizationRates, handle)
            power = self._told(nvml.nvmlDeviceGetPowerUsage, handle)  # mW
            mig = self._told(nvml.nvmlDeviceGetMigMode, handle)
            return Gpu(
                str(number), name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name),
                float(load.gpu) if load else None, int(memory.used) if memory else None,
                int(memory.total) if memory else None,
                self._told(nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
                power / 1000 if power is not None else None, self._processes(handle),
                "divided (MIG): its load is not told" if mig and mig[0] else "",
            )  # fmt: skip
        except nvml.NVMLError as error:
            lost = error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED)
            remark = "lost: reset it or start the machine anew" if lost else f"cannot be asked: {error}"
            return Gpu(str(number), remark=remark)

    def _processes(self, handle: Any) -> tuple[tuple[int, int | None], ...]:
        found = self._told(self._library.nvmlDeviceGetComputeRunningProcesses, handle) or ()
        return tuple((process.pid, process.usedGpuMemory) for process in found)

    def _told(self, question: Callable[..., Any], *about: Any) -> Any:
        """The answer, or None if this GPU does not give one; raises if the GPU is gone altogether."""
        nvml = self._library
        try:
            return question(*about)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                raise
            return None
