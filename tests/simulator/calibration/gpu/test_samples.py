"""The samples' file: what is written is read, and what cannot be is refused by file and field."""

import json
import os
import re
from dataclasses import replace

import pytest

from simulator.calibration.gpu import samples_reader as reader_module
from simulator.calibration.gpu.samples import (
    Device,
    LeftOut,
    Measurement,
    Sample,
    SamplesError,
    Verified,
    summary_of,
    write_samples,
)
from simulator.calibration.gpu.samples_reader import read_samples

DEVICE = Device("GPU", "9.0", 132, 80 * 10**9, 50 * 2**20, 1980000, 2619000, 5120, 13000, 13000, 131000)
TIMES_S = (1e-5, 1.1e-5, 1.2e-5, 1.3e-5, 1.4e-5)
NORM = Sample("norm", {"tokens": 1, "hidden": 8}, "batch", 40, 80, TIMES_S, *summary_of(TIMES_S))
MEASUREMENT = Measurement(
    DEVICE,
    "2026-01-31",
    7,
    (Verified("norm", {"tokens": 1, "hidden": 8}, "out", 1e-3, 4e-3, 0.5, ""),
     Verified("copy", {"bytes": 1}, "", None, 0.0, None, "illegal memory access")),
    (LeftOut("copy", {}, "failed verification"),),
    (NORM,),
)  # fmt: skip


def test_the_median_and_the_spread_are_of_the_middle_half():
    # Five times 10 to 14 us: the median is 12, the quartiles are 11 and 13, so that the spread is 2 / 12.
    assert summary_of(TIMES_S) == pytest.approx((1.2e-5, 2 / 12))
    assert summary_of((3.0,)) == (3.0, 0.0)


def test_rates_are_of_the_median():
    assert NORM.bytes_per_s == pytest.approx(80 / 1.2e-5)
    assert NORM.flops_per_s == pytest.approx(40 / 1.2e-5)


@pytest.mark.parametrize(
    "measurement", [MEASUREMENT, replace(MEASUREMENT, device=replace(DEVICE, cublaslt=None))]
)
def test_a_measurement_that_is_written_is_read(tmp_path, measurement):
    write_samples(measurement, tmp_path / "samples.json")
    assert read_samples(tmp_path / "samples.json") == measurement


def test_the_file_is_as_documented(tmp_path):
    write_samples(MEASUREMENT, tmp_path / "samples.json")
    content = json.loads((tmp_path / "samples.json").read_text())
    assert content["format"] == 1
    assert set(content) == {"format", "device", "date", "seed", "verified", "left_out", "samples"}
    assert set(content["samples"][0]) == {
        "kernel", "shape", "method", "flops", "bytes", "times_s", "median_s", "spread",
    }  # fmt: skip


def without(content, *path):
    for name in path[:-1]:
        content = content[name]
    del content[path[-1]]


def with_value(content, value, *path):
    for name in path[:-1]:
        content = content[name]
    content[path[-1]] = value


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda c: with_value(c, 2, "format"), "format: is 2; this version reads 1"),
        (lambda c: without(c, "format"), "format: is null; this version reads 1"),
        (lambda c: without(c, "seed"), "seed: is missing"),
        (lambda c: without(c, "device", "sms"), "device.sms: is missing"),
        (lambda c: with_value(c, "132", "device", "sms"), 'device.sms: is "132"; it must be of type int'),
        (lambda c: with_value(c, True, "device", "sms"), "device.sms: is true; it must be of type int"),
        (lambda c: with_value(c, 1, "device", "colour"), "device.colour: is unknown here; known are name, "),
        (lambda c: with_value(c, {}, "samples"), "samples: is {}; it must be of type list"),
        (lambda c: with_value(c, 3, "samples", 0), "samples[0]: is 3; it must be of type dict"),
        (lambda c: with_value(c, [], "samples", 0, "times_s"), "samples[0].times_s: is empty"),
        (lambda c: with_value(c, 0.0, "samples", 0, "times_s", 2), "samples[0].times_s[2]: is 0.0; a time is more"),
        (lambda c: with_value(c, None, "samples", 0, "times_s", 2), "samples[0].times_s[2]: is null; it must be"),
        (lambda c: with_value(c, 0, "samples", 0, "shape", "hidden"), "samples[0].shape.hidden: is 0; a size is at"),
        (lambda c: with_value(c, 0, "samples", 0, "bytes"), "samples[0].bytes: is 0; norm of this shape has 80"),
        (lambda c: without(c, "samples", 0, "shape", "hidden"), "samples[0].shape.hidden: is missing; norm has tok"),
        (lambda c: c["samples"].append(c["samples"][0]), "samples[1]: is norm at the shape of samples[0]; once is"),
        (lambda c: with_value(c, 2.0, "samples", 0, "median_s"), "samples[0].median_s: is 2.0; that of its times_s"),
        (lambda c: with_value(c, 0.5, "samples", 0, "spread"), "samples[0].spread: is 0.5; that of its times_s is"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_right_is_refused_by_field(tmp_path, edit, said):
    path = tmp_path / "samples.json"
    write_samples(MEASUREMENT, path)
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    with pytest.raises(SamplesError) as raised:
        read_samples(path)
    assert str(raised.value).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("samples[0].shape.hidden", -1, "is -1; a size is at least 1"),
        ("samples[0].shape.hidden", 2**41, "is 2199023255552; a size is at most 1099511627776"),
        ("samples[0].shape.hidden", 10**400, "is 100000... (401 digits); a size is at most"),
        ("samples[0].shape.rows", 3, "is unknown here; norm has tokens, hidden"),
        ("verified[0].shape.splits", 2, "is unknown here; norm has tokens, hidden"),
        ("verified[0].shape", {"hidden": 8}, ".tokens: is missing; norm has tokens, hidden"),
        ("left_out[0].shape", {"tokens": 1}, ".bytes: is missing; copy has bytes"),
        ("samples[0].kernel", "nrom", "is 'nrom'; kernels are copy, "),
        ("verified[1].kernel", "nrom", "is 'nrom'; kernels are copy, "),
        ("left_out[0].kernel", "nrom", "is 'nrom'; kernels are copy, "),
        ("samples[0].flops", 41, "is 41; norm of this shape has 40"),
        ("samples[0].bytes", 81, "is 81; norm of this shape has 80"),
        ("samples[0].times_s[1]", 10**400, f"is {10**39}, which is too large for a number"),
        ("verified[0].norm_error", 5e-3, "is 0.005, of at most 0.004, and `why` is empty; it must say"),
        ("verified[0].norm_error", None, "is null, of at most 0.004, and `why` is empty"),
        ("verified[0].worst_share", 1.5, "is 1.5, of at most 1.0, and `why` is empty"),
        ("verified[0].norm_error", -1.0, "is -1.0; it must be 0 or more"),
        ("device.sms", 0, "is 0; it must be from 1 to 1024"),
        ("device.memory_bytes", 10**30, "is 100000... (31 digits); it must be from"),
        ("device.compute_capability", "9", "is '9'; it must be one such as '9.0'"),
        ("device.name", "", "is ''; it must be the GPU's name as CUDA has it"),
        ("date", "yesterday", "is 'yesterday'; it must be a day such as 2026-01-31"),
        ("date", "20260131", "is '20260131'; it must be a day such as 2026-01-31"),
        ("seed", -1, "is -1; it must be 0 or more"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_field(tmp_path, field, value, said):
    path = tmp_path / "samples.json"
    write_samples(MEASUREMENT, path)
    content = json.loads(path.read_text())
    steps = [int(part) if part.isdigit() else part for part in re.findall(r"\w+", field)]
    with_value(content, value, *steps)
    path.write_text(json.dumps(content))
    with pytest.raises(SamplesError) as raised:
        read_samples(path)
    assert str(raised.value).startswith(f"{path}: {field}{'' if said.startswith('.') else ': '}{said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON: "),
        ('{"format": NaN}', "is not JSON: NaN is no number of JSON"),
        ("[]", "the file: is []; it must be of type dict"),
        ("[" * 10**5, "is nested too deep"),
        ('{"format": ' + "[" * 900 + "]" * 900 + "}", "format: is "),
        ('{"format": 1, "seed": 1, "seed": 2}', "seed: is there twice in one object"),
        ("1" * 5000, "is not JSON: Exceeds the limit"),
        ('{"format": 1e999}', "format: is Infinity; this version reads 1"),
    ],
)
def test_a_file_that_is_no_json_is_refused(tmp_path, text, said):
    path = tmp_path / "samples.json"
    path.write_text(text)
    with pytest.raises(SamplesError) as raised:
        read_samples(path)
    assert str(raised.value).startswith(f"{path}: {said}")


def test_a_shape_that_the_device_has_no_memory_for_is_refused(tmp_path):
    big = {"tokens": 2**26, "hidden": 2048}
    flops, size_bytes = 5 * 2**26 * 2048, 2 * 2048 * (4 * 2**26 + 1)
    write_samples(
        replace(MEASUREMENT, samples=(replace(NORM, shape=big, flops=flops, bytes=size_bytes),)),
        tmp_path / "samples.json",
    )
    with pytest.raises(
        SamplesError, match=r"samples\[0\]\.shape: needs \d+ bytes; device\.memory_bytes is 800"
    ):
        read_samples(tmp_path / "samples.json")


def test_a_file_that_is_none_of_ours_is_refused_unread(tmp_path, monkeypatch):
    with pytest.raises(SamplesError, match="is no regular file; name the samples"):
        read_samples(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SamplesError, match="pipe: is no regular file"):
        read_samples(tmp_path / "pipe")
    monkeypatch.setattr(reader_module, "MOST_BYTES", 10)
    write_samples(MEASUREMENT, tmp_path / "samples.json")
    with pytest.raises(SamplesError, match=r"has \d+ bytes; a file of samples has at most 10"):
        read_samples(tmp_path / "samples.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SamplesError, match="is not JSON: it is no UTF-8 text"):
        read_samples(tmp_path / "binary")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SamplesError, match=r"nothing\.json: cannot be read: No such file"):
        read_samples(tmp_path / "nothing.json")


def test_what_is_no_number_is_not_written(tmp_path):
    endless = replace(MEASUREMENT, samples=(replace(NORM, median_s=float("inf")),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_samples(endless, tmp_path / "samples.json")
