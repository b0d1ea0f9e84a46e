import json
import os
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from simulator.costs import catalogue, load_cost_table
from simulator.input_error import InputError
from simulator.run import link_costs
from simulator.scenario import load_scenario
from workloads.tasks import CommunicationKernel

TABLE = json.loads((files("simulator") / "kernel_costs" / "h800-published.json").read_text())


def write(tmp_path: Path, **changes: object) -> str:
    (tmp_path / "mine.json").write_text(json.dumps(TABLE | changes, indent=1))
    return "mine.json"


@pytest.mark.parametrize("name", catalogue())
def test_every_figure_of_every_table_has_a_source(name):
    table = load_cost_table(name, Path())
    assert table.name == name
    for figures in (table.link_efficiency, table.link_latency):
        for figure in figures.values():
            assert figure.how in {"measured", "published", "fitted", "assumed"}
            assert len(figure.source) > 20


def test_the_published_table_holds_the_published_figures():
    # Paper, section 4.3: 160 of 200 GB/s on NVLink; nccl-tests issues 267 and 290: 46 to 49 of 50 GB/s on a NIC;
    # paper, Table 5: 3.33, 2.8, 3.7, 3.6 and 5.6 us.
    table = load_cost_table("h800-published", Path())
    assert table.link_efficiency["nvlink"].value * 200 == pytest.approx(160)
    assert 46 <= table.link_efficiency["infiniband"].value * 50 <= 49
    latencies = {name: (entry.same_leaf, entry.cross_leaf) for name, entry in table.link_latency.items()}
    assert latencies == {
        "nvlink": (3.33e-6, None),
        "infiniband": (2.8e-6, 3.7e-6),
        "roce": (3.6e-6, 5.6e-6),
    }


def test_a_switch_adds_half_of_what_a_spine_and_a_leaf_add():
    # Cross leaf is leaf, spine, leaf: two switches more than same leaf. (3.7 - 2.8) / 2 = 0.45 us.
    costs = link_costs(load_cost_table("h800-published", Path()), frozenset({"infiniband", "nvlink", "pcie"}))
    assert costs["infiniband"].switch_latency_s == pytest.approx(0.45e-6)
    assert costs["nvlink"].switch_latency_s == 0.0
    assert costs["pcie"].latency_s == 0.0


def test_what_is_missing_is_an_error_and_no_default():
    table = load_cost_table("h800-published", Path())
    table.check("hopper", frozenset({"nvlink", "pcie", "infiniband", "roce"}))
    without = {name: figure for name, figure in table.link_efficiency.items() if name != "roce"}
    with pytest.raises(ValueError, match="has no efficiency for roce links"):
        table.model_copy(update={"link_efficiency": without}).check(
            "hopper", frozenset({"nvlink", "pcie", "roce"})
        )
    with pytest.raises(ValueError, match="is for hopper GPUs, the cluster's are blackwell"):
        table.check("blackwell", frozenset({"nvlink"}))
    load_cost_table("ideal", Path()).check("blackwell", frozenset({"nvlink", "pcie", "infiniband", "roce"}))


def test_sources_say_how_and_where_from():
    sources = load_cost_table("h800-published", Path()).sources(frozenset({"nvlink", "pcie"}))
    assert set(sources) == {"link_efficiency.nvlink", "link_efficiency.pcie", "link_latency.nvlink"}
    assert sources["link_efficiency.pcie"].startswith("assumed: PCI Express Base Specification")


def test_a_table_of_ones_own_is_read_from_beside_the_scenario(tmp_path):
    assert load_cost_table(write(tmp_path, name="mine"), tmp_path).name == "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"link_efficiency": {"nvlink": {"value": 1.2, "how": "assumed", "source": "x"}}},
            "is not between 1e-06 and 1",
        ),
        (
            {"link_efficiency": {"nvlink": {"value": 0.0, "how": "assumed", "source": "x"}}},
            "is not between 1e-06 and 1",
        ),
        (
            {"link_efficiency": {"nvlink": {"value": 0.5, "how": "guessed", "source": "x"}}},
            "link_efficiency.nvlink.how: expected 'measured'",
        ),
        (
            {"link_efficiency": {"nvlink": {"value": 0.5, "how": "assumed"}}},
            "nvlink.source: this field is missing",
        ),
        ({"link_latency": {"nvlink": {"same_leaf": 3.3, "how": "assumed", "source": "x"}}}, "has no unit"),
        (
            {"link_latency": {"nvlink": {"same_leaf": "-1 us", "how": "assumed", "source": "x"}}},
            "not negative",
        ),
        ({"extra": 1}, "unknown field 'extra'; known are name"),
        ({"codecs": {}}, "unknown field 'codecs'; did you mean 'codec'?"),
    ],
)
def test_a_broken_table_is_named(tmp_path, changes, message):
    name = write(tmp_path, **changes)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        load_cost_table(name, tmp_path)
    lines = (tmp_path / name).read_text().splitlines()
    field = next(iter(changes))
    assert caught.value.file == str(tmp_path / name)
    assert caught.value.field.partition(".")[0] == field
    # in a file with one figure's parts a line the name of the wrong one stands on the line that is given
    assert f'"{caught.value.field.rpartition(".")[2]}"' in lines[caught.value.line - 1] or "source" in message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": NaN}', "\x00", "[" * 100_000])
def test_what_is_no_table_is_an_error(tmp_path, text):
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_cost_table("mine.json", tmp_path)
    assert caught.value.file == str(tmp_path / "mine.json")


def test_unreadable_tables_are_named(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe")
    for name, reason in (
        ("missing.json", "there is no such file"),
        ("folder.json", "this is a directory"),
        ("latin.json", "this is UTF-16 or not text"),
        ("h800", "unknown cost table 'h800'; known are h800-published, ideal"),
    ):
        with pytest.raises(ValueError, match=reason):
            load_cost_table(name, tmp_path)


NORMAL = CommunicationKernel("normal", message_bytes=7472)


@pytest.mark.parametrize(
    ("kernel", "changes", "message"),
    [
        (NORMAL, {"communication": {}}, "has no costs of normal communication kernels"),
        (replace(NORMAL, codec="logfmt"), {"codec": {}}, "has no cost of the codec logfmt"),
        (
            replace(NORMAL, beside_compute=True),
            {"beside_compute": None},
            "has no slowdown of communication beside",
        ),
    ],
)
def test_a_kernel_that_is_not_priced_is_an_error_and_no_default(tmp_path, kernel, changes, message):
    load_cost_table("h800-published", Path()).check_kernel(kernel)
    table = load_cost_table(write(tmp_path, **changes), tmp_path)
    with pytest.raises(ValueError, match=rf"the cost table 'h800-published' {message}"):
        table.check_kernel(kernel)


def test_slowdowns_multiply_and_messages_are_the_kernel_s():
    table = load_cost_table("h800-published", Path())
    plain, slow = table.pricing(NORMAL), table.pricing(replace(NORMAL, codec="logfmt", beside_compute=True))
    assert (plain.slowdown, plain.message_bytes) == (1.0, 7472)
    assert slow.slowdown == table.codec["logfmt"].value * table.beside_compute.dispatch.value
    assert plain.start_up_s == table.communication["normal"].start_up.value


def test_dispatch_and_combine_are_slowed_beside_computation_each_by_its_own_figure():
    table = load_cost_table("h800-published", Path())
    beside = replace(NORMAL, beside_compute=True)
    combine = replace(beside, combines=True)
    assert table.pricing(beside).slowdown == table.beside_compute.dispatch.value
    assert table.pricing(combine).slowdown == table.beside_compute.combine.value
    assert table.beside_compute.dispatch.value > table.beside_compute.combine.value > 1.0
    named = table.sources(frozenset(), (combine,))
    assert "beside_compute.combine" in named
    assert "beside_compute.dispatch" not in named


def test_a_kernel_waits_only_beside_computation_and_only_if_its_table_says_so():
    table = load_cost_table("h800-published", Path())
    normal, beside = table.communication["normal"], replace(NORMAL, beside_compute=True)
    assert normal.wait_beside_compute.value > 0.0
    assert table.pricing(NORMAL).start_up_s == normal.start_up.value
    assert table.pricing(beside).start_up_s == normal.start_up.value + normal.wait_beside_compute.value
    # no wait is known of low-latency kernels, and nothing is waited for where all is ideal
    low_latency = replace(beside, name="low-latency")
    assert table.pricing(low_latency).start_up_s == table.communication["low-latency"].start_up.value
    assert load_cost_table("ideal", Path()).pricing(beside).start_up_s == 0.0


def test_roofline_has_the_communication_costs_of_the_published_table_assumed():
    published, roofline = (load_cost_table(name, Path()) for name in ("h800-published", "roofline"))
    assert roofline.communication.keys() == published.communication.keys()
    for name in published.communication:
        kernel = CommunicationKernel(name, message_bytes=7472, codec="logfmt", beside_compute=True)
        for used in (
            kernel,
            replace(kernel, combines=True),
            replace(kernel, codec="", beside_compute=False),
        ):
            assert roofline.pricing(used) == published.pricing(used)
        told = roofline.sources(frozenset({"nvlink"}), (kernel,))
        assert told.keys() == published.sources(frozenset({"nvlink"}), (kernel,)).keys()
        assert all(text.startswith("assumed: as h800-published") for text in told.values())


def test_sources_name_each_constant_of_a_kernel_and_what_a_fit_misses():
    table = load_cost_table("h800-published", Path())
    slow = replace(NORMAL, codec="logfmt", beside_compute=True)
    profiles = frozenset({"nvlink"})
    added = table.sources(profiles, (slow,)).keys() - table.sources(profiles).keys()
    assert added == {
        "communication.normal.start_up",
        "communication.normal.per_message.nvlink",
        "communication.normal.wait_beside_compute",
        "codec.logfmt",
        "beside_compute.dispatch",
    }
    told = table.sources(profiles, (slow,))["communication.normal.start_up"]
    assert told.startswith("fitted: ")
    assert told.endswith("which it misses by 4.8% at most")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "beside_compute": {
                    part: {"value": 0.5, "how": "assumed", "source": "x"} for part in ("dispatch", "combine")
                }
            },
            "not between 1 and 1000",
        ),
        ({"beside_compute": {"dispatch": TABLE["beside_compute"]["dispatch"]}}, "beside_compute.combine"),
        ({"communication": {"normal": {"per_message": {}}}}, "communication.normal.start_up"),
        (
            {"communication": {"normal": TABLE["communication"]["normal"] | {"wait_beside_compute": "1 ms"}}},
            "communication.normal.wait_beside_compute",
        ),
    ],
)
def test_constants_of_kernels_are_checked(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_cost_table(write(tmp_path, **changes), tmp_path)


def kernels(**changes: object) -> dict[str, object]:
    return {"kernels": {**TABLE["kernels"], **changes}}


ENTRY = TABLE["kernels"]["streaming"]
SHAPE = {"call": {"kind": "norm", "rows": 1, "width": 8}, "share": 0.5}
SLOWER = {"value": 1.0, "how": "assumed", "source": "a test"}
LISTED = {"how": "measured", "source": "a test", "shapes": [SHAPE]}


# Two rows in less time than one, 144 bytes at twice the rate of 80; and 64 rows at the arithmetic peak, with weights
# that no memory could bring in that time.
FASTER = {"call": {"kind": "norm", "rows": 2, "width": 8}, "share": 1.0}
FAST = {"call": {"kind": "gemm", "rows": 64, "columns": 2112, "depth": 7168, "format": "fp8"}, "share": 1.0}


def gemms(shape: dict[str, object]) -> dict[str, object]:
    entry = TABLE["kernels"]["gemm-fp8"]
    return kernels(**{"gemm-fp8": entry | {"listed": LISTED | {"shapes": [shape]}}})


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (kernels(softmax=ENTRY), "unknown kernel 'softmax'; .*known are gemm-fp8"),
        ({"beside_communication": {"sort": SLOWER}}, "unknown kernel 'sort'"),
        (kernels(attention=ENTRY), "kernels.attention: the kernel 'attention' computes, and needs `arithmetic`"),
        (
            kernels(copy=ENTRY | {"listed": LISTED}),
            "kernels.copy.listed.shapes.0: this lists a shape of the kernel 'norm'",
        ),
        (
            kernels(streaming=ENTRY | {"listed": LISTED}),
            "kernels.streaming.listed.shapes.0: this lists a shape of the kernel 'norm'",
        ),
        (
            kernels(norm=ENTRY | {"listed": LISTED | {"shapes": [SHAPE, SHAPE]}}),
            "kernels.norm.listed.shapes.1: norm 1x8 is listed twice",
        ),
        (
            kernels(norm=ENTRY | {"listed": LISTED | {"shapes": [SHAPE, FASTER]}}),
            "kernels.norm.listed.shapes.0: norm 1x8 .* and norm 2x8 .* cannot both be",
        ),
        (gemms(FAST), "more than the 3.35e\\+12 of the H800 SXM5"),
        (kernels(attention=ENTRY | {"arithmetic": SLOWER}), "needs `effects`"),
        (kernels(norm=ENTRY | {"launch": SLOWER | {"value": "0 s", "source": ""}}), "kernels.norm.launch.source"),
        (kernels(norm=ENTRY | {"listed": LISTED}) | {"device": None}, "needs the `device` where they were measured"),
        (kernels(norm=ENTRY | {"listed": LISTED | {"shapes": []}}), "kernels.norm.listed.shapes"),
        (
            kernels(norm=ENTRY | {"listed": LISTED | {"shapes": [SHAPE | {"share": 1.5}]}}),
            "share: must be at most 1, not 1.5",
        ),
        (
            kernels(norm=ENTRY | {"listed": LISTED | {"shapes": [SHAPE | {"share": 0.0}]}}),
            "share: must be more than 0, not 0.0",
        ),
        (kernels(norm=ENTRY | {"bandwidth": SLOWER | {"value": 0.0}}), "0.0 is not between 1e-06"),
        (kernels(norm=ENTRY | {"launch": SLOWER | {"value": 3}}), "3 has no unit"),
        ({"beside_communication": {"norm": SLOWER | {"value": 0.9}}}, "slowdown of 0.9"),
    ],
)  # fmt: skip
def test_broken_kernel_costs_are_refused_where_they_are(tmp_path, changes, match):
    with pytest.raises(InputError, match=match) as error:
        load_cost_table(write(tmp_path, **changes), tmp_path)
    assert error.value.file == str(tmp_path / "mine.json")
    assert error.value.line is not None


def test_numbers_that_are_none_are_refused(tmp_path):
    text = json.dumps(TABLE).replace('"value": 0.667', '"value": NaN')
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(InputError, match=r"mine.json:1: kernels\.latent-attention\.arithmetic.value"):
        load_cost_table("mine.json", tmp_path)


def test_a_table_that_is_not_measured_is_refused_and_not_offered():
    assert "h200-measured" not in catalogue()
    with pytest.raises(
        ValueError, match=r"h200-measured:\d+: not_measured: .* not measured yet: .*railplane calibrate"
    ):
        load_cost_table("h200-measured", Path())


def test_kernels_that_a_table_lacks_are_named_when_the_scenario_is_loaded(tmp_path):
    write(tmp_path, kernels={name: entry for name, entry in TABLE["kernels"].items() if name != "attention"})
    scenario = tmp_path / "s.yaml"
    call = "{kind: attention, requests: 1, cached_tokens: 8, heads: 1, kv_heads: 1, key_width: 8, value_width: 8}"
    scenario.write_text(
        "name: s\ncluster: {node: h800, topology: {kind: none}}\ncosts: mine.json\n"
        f"workload: {{kind: kernels, calls: [{call}]}}\n"
    )
    with pytest.raises(InputError, match=r"s.yaml:3: costs: .* has no costs of the kernel 'attention'"):
        load_scenario(scenario)
    with pytest.raises(
        InputError, match="is for hopper GPUs, the cluster's are blackwell; `roofline` and `ideal`"
    ):
        load_scenario(scenario, ["cluster.node=gb200-nvl72", "costs=h800-published"])
    with pytest.raises(
        InputError,
        match=r"workload\.communication_sms: communication kernels hold 132 of the 132 SMs of the H800 SXM5",
    ):
        load_scenario(scenario, ["costs=h800-published", "workload.communication_sms=132"])


def test_what_pydantic_cannot_read_is_said_in_words(tmp_path):
    text = json.dumps(TABLE)
    for value, words in (
        ("9" * 5000, "kernels.latent-attention.arithmetic.value: .* not inf"),
        ('"\\ud800"', "cannot be read as a cost table: unexpected end of hex escape"),
        ("[" * 500 + "]" * 500, "cannot be read as a cost table: recursion limit"),
    ):
        (tmp_path / "mine.json").write_text(text.replace('"value": 0.667', f'"value": {value}'))
        with pytest.raises(InputError, match=words):
            load_cost_table("mine.json", tmp_path)


def test_what_a_table_says_twice_is_named(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(TABLE).replace('"name":', '"name": "x", "name":', 1))
    with pytest.raises(ValueError, match=r"mine\.json:1: name: this key stands twice"):
        load_cost_table("mine.json", tmp_path)


def test_a_table_that_never_ends_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match=r"pipe\.json: this is a pipe"):
        load_cost_table("pipe.json", tmp_path)
