"""Kernels that are wrong in one way each, to show that verification finds it."""

from contextlib import contextmanager

import numpy as np

from simulator.calibration.gpu.cuda_library import CudaError, Library
from simulator.calibration.gpu.truth_formats import from_bf16_bits, to_bf16_bits


class Damaged:
    """A kernel that does something else, too, with what it was given."""

    def __init__(self, kernel, damage):
        self.kernel, self.damage = kernel, damage
        self.name = kernel.name
        self.inputs, self.outputs, self.compare = kernel.inputs, kernel.outputs, kernel.compare
        self.flops, self.bytes, self.note = kernel.flops, kernel.bytes, kernel.note

    @contextmanager
    def bound_call(self, bench, shape, arrays):
        with self.kernel.bound_call(bench, shape, arrays) as call:

            def damaged_call():
                call()
                self.damage(self.kernel, shape, arrays)

            yield damaged_call


def change(memory, edit):
    """Edit the bytes of device memory."""
    content = memory.to_host(memory.size_bytes, np.uint8)
    edit(content)
    memory.upload(content)


def last_output(kernel, shape):
    return list(kernel.outputs(shape).items())[-1]


def corrupt_one_element(kernel, shape, arrays):
    """Change the first output's largest element by a quarter, or a code by two."""
    name, output = next(iter(kernel.outputs(shape).items()))
    values = arrays[name].to_host(output.shape, output.dtype)
    if output.dtype == np.uint16:
        exact = np.nan_to_num(from_bf16_bits(values))
        at = np.unravel_index(np.abs(exact).argmax(), exact.shape)
        values[at] = to_bf16_bits(1.25 * exact[at])
    else:
        at = np.unravel_index(((values & 0x7F) % 0x7F).argmax(), values.shape)
        values[at] -= 2
    arrays[name].upload(values)


def leave_last_element_unwritten(kernel, shape, arrays):
    name, output = last_output(kernel, shape)
    item_bytes = np.dtype(output.dtype).itemsize

    def edit(content):
        # The last element that the kernel wrote: slots without a copy keep their poison anyway.
        written = np.flatnonzero(content[: output.size_bytes] != 0xFF)[-1] // item_bytes
        content[written * item_bytes : (written + 1) * item_bytes] = 0xFF

    change(arrays[name], edit)


def write_past_the_end(kernel, shape, arrays):
    name, output = last_output(kernel, shape)

    def edit(content):
        content[output.size_bytes + 5] = 0

    change(arrays[name], edit)


def write_to_an_input(kernel, shape, arrays):
    name = next(name for name in arrays if name not in kernel.outputs(shape))

    def edit(content):
        content[0] ^= 1

    change(arrays[name], edit)


def do_nothing_right(kernel, shape, arrays):
    for name in kernel.outputs(shape):
        arrays[name].fill(0xFF)


def refuse(kernel, shape, arrays):
    raise CudaError("rp_anything: an illegal memory access was encountered (CUDA error 700)")


class MortalLibrary(Library):
    """A library whose device, once a kernel failed while it ran, refuses every call with that kernel's error."""

    dead = False

    def call(self, name, *arguments):
        if self.dead:
            raise CudaError(f"{name}: an illegal memory access was encountered (CUDA error 700)")
        super().call(name, *arguments)


def fail_the_device(kernel, shape, arrays):
    """Fail as a kernel does while it runs: what waits for it next is told."""
    next(iter(arrays.values()))._library.dead = True
