"""What the NVIDIA driver says of this machine's GPUs, asked without compiling anything."""

import ctypes
from typing import Any, Final

from simulator.calibration.gpu.build import MissingTool

DRIVER: Final = "libcuda.so.1"
COMPUTE_CAPABILITY: Final = "9.0"  # what the kernels are compiled for
WHAT_TO_DO: Final = "measure on a machine with an NVIDIA Hopper GPU and its driver"
# CUDA's driver interface, cuda.h.
_NO_DEVICE: Final = 100
_CAPABILITY_MAJOR: Final = 75
_CAPABILITY_MINOR: Final = 76


def check_gpu(device: int) -> None:
    """Raise MissingTool unless the driver is there and has a Hopper GPU of this number."""
    try:
        driver = ctypes.CDLL(DRIVER)
    except OSError as error:
        raise MissingTool(
            f"a GPU is missing: there is no NVIDIA driver ({DRIVER}) here; {WHAT_TO_DO}"
        ) from error
    _ask(driver, driver.cuInit(0))
    count = ctypes.c_int()
    _ask(driver, driver.cuDeviceGetCount(ctypes.byref(count)))
    check_count(device, count.value)
    capability = ".".join(
        str(_attribute(driver, device, which)) for which in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR)
    )
    check_capability(device, capability)


def check_count(device: int, count: int) -> None:
    """Raise MissingTool unless there is a GPU of this number."""
    if count == 0:
        raise MissingTool(f"a GPU is missing: the driver has none; {WHAT_TO_DO}")
    if device >= count:
        raise MissingTool(f"GPU {device} is missing: this machine has {count}, numbered from 0")


def check_capability(device: int, capability: str) -> None:
    """Raise MissingTool unless this is what the kernels are compiled for."""
    if capability != COMPUTE_CAPABILITY:
        raise MissingTool(
            f"a Hopper GPU is missing: GPU {device} has compute capability {capability}, and the kernels are "
            f"compiled for {COMPUTE_CAPABILITY}; name another by --device"
        )


def _attribute(driver: Any, device: int, which: int) -> int:
    handle, value = ctypes.c_int(), ctypes.c_int()
    _ask(driver, driver.cuDeviceGet(ctypes.byref(handle), ctypes.c_int(device)))
    _ask(driver, driver.cuDeviceGetAttribute(ctypes.byref(value), ctypes.c_int(which), handle))
    return value.value


def _ask(driver: Any, code: int) -> None:
    """Raise MissingTool, in the driver's words, where a call to it did not return 0."""
    if code == 0:
        return
    if code == _NO_DEVICE:
        check_count(0, 0)
    text = ctypes.c_char_p()
    driver.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
    said = (text.value or b"unknown").decode()
    raise MissingTool(f"a GPU is missing: the NVIDIA driver says '{said}' (error {code}); {WHAT_TO_DO}")
