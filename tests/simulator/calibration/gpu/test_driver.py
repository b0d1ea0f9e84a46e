"""What the driver says of a machine's GPUs, by a driver that only pretends."""

import pytest

from simulator.calibration.gpu import driver as module
from simulator.calibration.gpu.build import MissingTool
from simulator.calibration.gpu.driver import check_gpu


class PretendedDriver:
    """CUDA's driver interface on a machine with GPUs of these compute capabilities."""

    def __init__(self, capabilities=((9, 0),), init_code=0):
        self.capabilities, self.init_code = capabilities, init_code

    def cuInit(self, flags):  # noqa: N802
        return self.init_code

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.capabilities)
        return 0

    def cuDeviceGet(self, handle, device):  # noqa: N802
        handle._obj.value = device.value
        return 0

    def cuDeviceGetAttribute(self, value, which, handle):  # noqa: N802
        value._obj.value = self.capabilities[handle.value][which.value - 75]
        return 0

    def cuGetErrorString(self, code, text):  # noqa: N802
        text._obj.value = b"system driver mismatch"
        return 0


def said(monkeypatch, driver, device=0):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: driver)
    with pytest.raises(MissingTool) as raised:
        check_gpu(device)
    return str(raised.value)


def test_a_hopper_gpu_is_good(monkeypatch):
    monkeypatch.setattr(module.ctypes, "CDLL", lambda name: PretendedDriver(((8, 0), (9, 0))))
    check_gpu(1)


def test_what_is_missing_is_named(monkeypatch):
    assert said(monkeypatch, PretendedDriver(())).startswith(
        "a GPU is missing: the driver has none; measure on"
    )
    assert said(monkeypatch, PretendedDriver(init_code=100)).startswith(
        "a GPU is missing: the driver has none;"
    )
    assert said(monkeypatch, PretendedDriver(), 3) == "GPU 3 is missing: this machine has 1, numbered from 0"
    told = said(monkeypatch, PretendedDriver(init_code=803))
    assert "the NVIDIA driver says 'system driver mismatch' (error 803); measure on a machine with" in told
    told = said(monkeypatch, PretendedDriver(((9, 0), (10, 0))), 1)
    assert "GPU 1 has compute capability 10.0, and the kernels are compiled for 9.0" in told


def test_a_machine_without_a_driver_is_told_so(monkeypatch):
    monkeypatch.setattr(module, "DRIVER", "libno-such-driver.so.1")
    with pytest.raises(
        MissingTool, match=r"a GPU is missing: there is no NVIDIA driver .*Hopper GPU and its"
    ):
        check_gpu(0)
