"""The kernels' library as Python sees it: device memory, events and one method a kernel.

Every call is checked: what CUDA refuses is raised as CudaError, at once or, for a kernel that failed while it ran, by
the next `synchronise`. The tests open the same sources compiled for the CPU by the same class.
"""

import ctypes
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

_NAME_BYTES: Final = 256


class CudaError(RuntimeError):
    """A call that CUDA refused, or a kernel that failed: which, and CUDA's own words."""


class DeviceFailed(CudaError):  # noqa: N818
    """After an error the device answers no more calls: what failed, for what comes later fails through no fault."""


def give_back(release: Callable[[], None], error: BaseException | None) -> None:
    """Release something at the end of a `with`; where an error ended it, another on the way out does not hide it."""
    with suppress(CudaError) if error is not None else nullcontext():
        release()


class DeviceArray:
    """Memory on the device; released at the end of its `with` block, or by `release`."""

    def __init__(self, library: "Library", size_bytes: int) -> None:
        pointer = ctypes.c_void_p()
        library.call("rp_allocate", ctypes.byref(pointer), ctypes.c_int64(size_bytes))
        self._library = library
        self.size_bytes = size_bytes
        self.pointer = pointer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        give_back(self.release, error)

    def release(self) -> None:
        """Give the memory back; a second time does nothing."""
        pointer, self.pointer = self.pointer, ctypes.c_void_p()
        if pointer:
            self._library.call("rp_release", pointer)

    def upload(self, array: NDArray[Any]) -> None:
        """Copy `array` to the memory's start."""
        packed = np.ascontiguousarray(array)
        self._check_fits(packed.nbytes)
        self._library.call(
            "rp_to_device", self.pointer, ctypes.c_void_p(packed.ctypes.data), _size(packed.nbytes)
        )

    def to_host(self, shape: int | Sequence[int], dtype: DTypeLike) -> NDArray[Any]:
        """Return a copy of the memory's start as an array; waits for the kernels before."""
        array = np.empty(shape, dtype)
        self._check_fits(array.nbytes)
        self._library.call(
            "rp_to_host", ctypes.c_void_p(array.ctypes.data), self.pointer, _size(array.nbytes)
        )
        return array

    def fill(self, byte: int) -> None:
        """Set every byte of the memory, 0 to 255."""
        self._library.call("rp_fill", self.pointer, ctypes.c_int(byte), _size(self.size_bytes))

    def _check_fits(self, size_bytes: int) -> None:
        if not self.pointer and self.size_bytes:
            raise ValueError("the device memory has been released")
        if size_bytes > self.size_bytes:
            raise ValueError(f"{size_bytes} bytes do not fit into device memory of {self.size_bytes}")


class Event:
    """A moment on the device; destroyed at the end of its `with` block."""

    def __init__(self, library: "Library") -> None:
        self._library = library
        self._handle = ctypes.c_void_p()
        library.call("rp_event_create", ctypes.byref(self._handle))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        give_back(lambda: self._library.call("rp_event_destroy", self._handle), error)

    def record(self) -> None:
        """Mark the moment at which all that was asked of the device before is done."""
        self._library.call("rp_event_record", self._handle)

    def seconds_until(self, end: "Event") -> float:
        """Return the time from this event to `end`, for which it waits."""
        elapsed_ms = ctypes.c_float()
        self._library.call("rp_event_elapsed_ms", self._handle, end._handle, ctypes.byref(elapsed_ms))
        return elapsed_ms.value / 1e3


@dataclass(frozen=True)
class DeviceProperties:
    """What a device is: clocks are the highest that it can have, sizes in bytes."""

    name: str
    compute_capability: str
    sms: int
    memory_bytes: int
    l2_bytes: int
    sm_clock_khz: int
    memory_clock_khz: int
    bus_width_bits: int
    shared_bytes_per_block: int


class Library:
    """The kernels' shared library at `path`, on device 0 until `set_device`."""

    def __init__(self, path: Path) -> None:
        try:
            self._functions = ctypes.CDLL(str(path))
        except OSError as error:
            raise CudaError(f"the kernels' library cannot be opened: {error}") from error
        self._functions.rp_error_text.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: Any) -> None:
        """Call the function `name` with ctypes' values; raise CudaError where it does not return 0."""
        code = getattr(self._functions, name)(*arguments)
        if code != 0:
            text = self._functions.rp_error_text(ctypes.c_int(code))
            raise CudaError(f"{name}: {text.decode()} (CUDA error {code})")

    # --- the device ---

    def device_count(self) -> int:
        """Return the number of devices; raises CudaError where there is no driver."""
        return self._int("rp_device_count")

    def set_device(self, device: int) -> None:
        """Let all that follows happen on `device`."""
        self.call("rp_set_device", ctypes.c_int(device))

    def device_properties(self, device: int) -> DeviceProperties:
        """Return what `device` is."""
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self.call("rp_device_name", ctypes.c_int(device), name, _size(_NAME_BYTES))
        major, minor, *others = (self._attribute(device, which) for which in range(9))
        return DeviceProperties(name.value.decode(), f"{major}.{minor}", *others)

    def driver_version(self) -> int:
        """Return the newest CUDA that the driver knows, 13000 for 13.0; 0 without a driver."""
        return self._int("rp_driver_version")

    def runtime_version(self) -> int:
        """Return the CUDA runtime's version, 13000 for 13.0."""
        return self._int("rp_runtime_version")

    def _attribute(self, device: int, which: int) -> int:
        value = ctypes.c_int64()
        self.call("rp_device_attribute", ctypes.c_int(device), ctypes.c_int(which), ctypes.byref(value))
        return value.value

    def _int(self, name: str) -> int:
        value = ctypes.c_int()
        self.call(name, ctypes.byref(value))
        return value.value

    # --- memory and time ---

    def allocate(self, content: NDArray[Any] | int) -> DeviceArray:
        """Return memory that holds `content`, or, where that is a number, so many bytes of nobody knows what."""
        if isinstance(content, np.ndarray):
            memory = DeviceArray(self, content.nbytes)
            memory.upload(content)
            return memory
        return DeviceArray(self, content)

    def event(self) -> Event:
        """Return a new event, not recorded yet."""
        return Event(self)

    def synchronise(self) -> None:
        """Wait for the device; raises CudaError where a kernel failed."""
        self.call("rp_synchronize")

    def check_answers(self, what: str, error: CudaError) -> None:
        """Raise DeviceFailed if the device answers no more after an error; what: what was asked of it."""
        try:
            self.synchronise()
        except CudaError:
            message = f"{what}: {error}; the device answers no more, so that nothing after it is measured"
            raise DeviceFailed(message) from error

    # --- kernels; none waits for the device ---

    def copy(self, source: DeviceArray, target: DeviceArray, size_bytes: int) -> None:
        """Copy `size_bytes` from the start of one memory to that of another."""
        self.call("rp_copy", source.pointer, target.pointer, _size(size_bytes))

    def quantise_pack(
        self,
        x: DeviceArray,
        slot_of_copy: DeviceArray,
        packed: DeviceArray,
        scale: DeviceArray,
        *,
        tokens: int,
        hidden: int,
        copies: int,
    ) -> None:
        """Quantise each token by tiles of 128 and write it to each of its slots.

        x: [tokens, hidden] bf16; slot_of_copy: [tokens, copies] int32, -1 for no copy
        packed: [slots, hidden] e4m3, written; scale: [slots, ceil(hidden / 128)] float32, written
        """
        pointers = (array.pointer for array in (x, slot_of_copy, packed, scale))
        self.call("rp_quantise_pack", *pointers, _size(tokens), _size(hidden), _size(copies))

    def combine(
        self,
        rows: DeviceArray,
        slot_of_copy: DeviceArray,
        weight: DeviceArray,
        out: DeviceArray,
        *,
        tokens: int,
        hidden: int,
        copies: int,
    ) -> None:
        """Sum each token's copies by their weights.

        rows: [slots, hidden] bf16; slot_of_copy: [tokens, copies] int32, -1 for no copy
        weight: [tokens, copies] float32; out: [tokens, hidden] bf16, written
        """
        pointers = (array.pointer for array in (rows, slot_of_copy, weight, out))
        self.call("rp_combine", *pointers, _size(tokens), _size(hidden), _size(copies))

    def rms_norm(
        self,
        x: DeviceArray,
        residual: DeviceArray,
        gamma: DeviceArray,
        out: DeviceArray,
        total: DeviceArray,
        *,
        tokens: int,
        hidden: int,
        epsilon: float,
    ) -> None:
        """Add the residual and normalise the sum by its root mean square.

        x, residual: [tokens, hidden] bf16; gamma: [hidden] bf16
        out, total: [tokens, hidden] bf16, written: normalised sum times gamma, and the sum
        """
        pointers = (array.pointer for array in (x, residual, gamma, out, total))
        self.call("rp_rms_norm", *pointers, _size(tokens), _size(hidden), ctypes.c_float(epsilon))

    def mla_decode_splits(self, *, requests: int, heads: int, max_cached_tokens: int, sms: int) -> int:
        """Return into how many parts each request's cache is best split on so many SMs."""
        splits = ctypes.c_int64()
        sizes = (_size(requests), _size(heads), _size(max_cached_tokens), _size(sms))
        self.call("rp_mla_decode_splits", *sizes, ctypes.byref(splits))
        return splits.value

    def mla_decode_workspace_bytes(self, *, requests: int, heads: int, splits: int) -> int:
        """Return how much memory `mla_decode` needs for the results of its parts."""
        size_bytes = ctypes.c_int64()
        self.call(
            "rp_mla_decode_workspace_bytes",
            _size(requests),
            _size(heads),
            _size(splits),
            ctypes.byref(size_bytes),
        )
        return size_bytes.value

    def mla_decode(
        self,
        query: DeviceArray,
        cache: DeviceArray,
        page_table: DeviceArray,
        cached_tokens: DeviceArray,
        out: DeviceArray,
        workspace: DeviceArray,
        *,
        requests: int,
        heads: int,
        max_pages: int,
        splits: int,
        softmax_scale: float,
    ) -> None:
        """Attend from one token of each request to its latent cache, in absorbed form.

        query: [requests, heads, 576] bf16; cache: [pages, 64, 576] bf16; page_table: [requests, max_pages] int32
        cached_tokens: [requests] int32; out: [requests, heads, 512] bf16, written; workspace: written
        """
        arrays = (query, cache, page_table, cached_tokens, out, workspace)
        sizes = (_size(requests), _size(heads), _size(max_pages), _size(splits))
        self.call(
            "rp_mla_decode", *(array.pointer for array in arrays), *sizes, ctypes.c_float(softmax_scale)
        )


def _size(size: int) -> ctypes.c_int64:
    return ctypes.c_int64(size)
