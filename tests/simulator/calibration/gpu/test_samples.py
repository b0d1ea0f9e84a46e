"""The samples' file: what is written is read, and what cannot be is refused by file and field."""

import json
from dataclasses import replace

import pytest

from simulator.calibration.gpu.samples import (
    Device,
    LeftOut,
    Measurement,
    Sample,
    SamplesError,
    Verified,
    read_samples,
    summary_of,
    write_samples,
)

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
        (lambda c: without(c, "format"), "format: is None; this version reads 1"),
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
        (lambda c: with_value(c, 0, "samples", 0, "bytes"), "samples[0]: flops 40, bytes 0; they are at least"),
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
    ("text", "said"),
    [
        ("{", "is not JSON: "),
        ('{"format": NaN}', "is not JSON: NaN is no number of JSON"),
        ("[]", "the file: is []; it must be of type dict"),
    ],
)
def test_a_file_that_is_no_json_is_refused(tmp_path, text, said):
    path = tmp_path / "samples.json"
    path.write_text(text)
    with pytest.raises(SamplesError) as raised:
        read_samples(path)
    assert str(raised.value).startswith(f"{path}: {said}")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SamplesError, match=r"nothing\.json: cannot be read: No such file"):
        read_samples(tmp_path / "nothing.json")


def test_what_is_no_number_is_not_written(tmp_path):
    endless = replace(MEASUREMENT, samples=(replace(NORM, median_s=float("inf")),))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_samples(endless, tmp_path / "samples.json")
