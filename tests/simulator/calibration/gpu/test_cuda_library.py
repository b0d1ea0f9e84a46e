"""The kernels' library as Python sees it, on the CPU: memory, events, properties, and what is raised."""

import numpy as np
import pytest

from simulator.calibration.gpu.cuda_library import CudaError, Library
from support.emulated import MISSING_COMPILER, emulated_library, has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(), reason=MISSING_COMPILER)


@pytest.fixture(scope="module")
def library():
    return emulated_library()


def test_memory_holds_what_was_put_there(library):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    with library.allocate(array) as memory:
        assert memory.size_bytes == 48
        np.testing.assert_array_equal(memory.to_host((3, 4), np.float32), array)
        np.testing.assert_array_equal(memory.to_host(5, np.float32), array.ravel()[:5])
        memory.upload(array[:, ::2])  # not contiguous
        np.testing.assert_array_equal(memory.to_host((3, 2), np.float32), array[:, ::2])
        memory.fill(0xFF)
        assert np.isnan(memory.to_host((3, 4), np.float32)).all()


def test_memory_is_given_back_once(library):
    memory = library.allocate(16)
    memory.release()
    memory.release()
    with pytest.raises(ValueError, match="has been released"):
        memory.to_host(16, np.uint8)


def test_more_than_the_memory_holds_is_refused(library):
    with library.allocate(16) as memory:
        with pytest.raises(ValueError, match="20 bytes do not fit into device memory of 16"):
            memory.to_host(5, np.float32)
        with pytest.raises(ValueError, match="24 bytes do not fit into device memory of 16"):
            memory.upload(np.zeros(3))


def test_events_tell_the_time_between_them(library):
    # The device is the host here: what the host does between two records is the time between them.
    with library.event() as start, library.event() as end, library.allocate(1 << 22) as memory:
        start.record()
        for _ in range(20):
            memory.to_host(1 << 22, np.uint8)
        end.record()
        assert 1e-6 < start.seconds_until(end) < 10
        assert start.seconds_until(start) == 0


def test_properties_come_in_the_order_of_their_names(library):
    properties = library.device_properties(0)
    assert library.device_count() == 1
    assert properties.name == "CUDA on the CPU"
    assert properties.compute_capability == "9.0"
    assert (properties.sms, properties.memory_bytes, properties.l2_bytes) == (4, 1 << 30, 1 << 16)
    assert (properties.sm_clock_khz, properties.memory_clock_khz) == (1_000_000, 2_000_000)
    assert (properties.bus_width_bits, properties.shared_bytes_per_block) == (64, 227 * 1024)
    assert (library.driver_version(), library.runtime_version()) == (13000, 13000)


def test_what_cuda_refuses_is_raised_in_its_own_words(library):
    library.set_device(0)
    with pytest.raises(CudaError, match=r"rp_set_device: invalid device ordinal \(CUDA error 101\)"):
        library.set_device(7)
    with pytest.raises(CudaError, match="rp_device_name: invalid device ordinal"):
        library.device_properties(7)
    with pytest.raises(CudaError, match="rp_allocate: out of memory"):
        library.allocate(1 << 40)
    with pytest.raises(CudaError, match="rp_allocate: invalid argument"):
        library.allocate(-1)


def test_a_file_that_is_no_library_is_named(tmp_path):
    path = tmp_path / "libnothing.so"
    path.write_text("no library")
    with pytest.raises(CudaError, match=r"the kernels' library cannot be opened: .*libnothing\.so"):
        Library(path)
