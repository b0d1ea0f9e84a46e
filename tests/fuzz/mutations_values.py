"""Values, names and bytes that no field, or few, can have."""

from typing import Final

# as YAML
ODD_VALUES: Final = (
    "0", "-1", "1", "2", "3", "7", "64", "1000", "1e3", "0.5", "-0.0", "-5", "12.", ".5", "1_000", "+8", "010",
    "0x10", "0o17", "0b11", "0x", "0xZZ", "0x" + "f" * 15, "0o" + "7" * 25, "1e400", "-1e400", "1e-400", "1e15",
    ".nan", ".inf", "-.inf", "nan", "inf", "Infinity", "9" * 400, "0." + "0" * 300 + "1", "1" * 39,
    "-" + "9" * 20, str(2**31), str(2**32), str(2**63 - 1), str(2**63), str(2**64), str(-(2**63)),
    str(2**53 + 1), "1e18", "1e300", "true", "false", "True", "yes", "no", "null", "~", "", "''", "' '", "auto",
    "all", "none", "'8'", "[]", "{}", "[1]", "[1, 2]", "[[]]", "{a: 1}", "{kind: none}", "{kind: }", "[null]",
    "[{}]", "{'': 1}", "[a, b]", "{1: 2}", "'x' * 9", "x" * 5000, "x" * 200, "'a\tb'", '"a\\nb"', '"\\0"',
    '"\\x07"', '"\\ud800"', 'caf\xe9', 'cafe\u0301', '\u202eabc', '\U0001f600', '\ufeffx', '\uff18',
    'h8\u043e\u043e', '\u0661\u0662', '\xbd', '8\xa0GiB', '\u2212 1', "2024-01-01", "12:30:45", "!!int 5",
    "!!python/object/apply:os.system ['x']", "!x y", "!!binary aGk=", "!!set {a}", "&a 5", "*a", "*nowhere",
    "&a [*a]", "&a {b: *a}", "{<<: {a: 1}}", "&a", "@x", "`x", "%x", "|", ">-", "? a",
    "|\n      text\n      more", ">\n      folded", "|+9\n  x", "'open", '"open', "[open", "{open", "]", "}",
    "a: b", "1 GiB", "1 s", "5 us", "400 Gbit/s", "8 gib", "8 GiBs", "1e400 GiB", "-1 GiB", "GiB", "1 000 B",
    "1,5 GB", "1e3GiB", "0 B", "0 s", "1e-300 s", "1e308 s", "1e17 B", "50%", "1/2", "1 GB/s", "30 kUSD",
    "1 TFLOP/s", "8B", "../x.json", "/etc/passwd", "/dev/zero", ".", "..", "~/x", "x.json", "$HOME", "a\\b",
    "http://x/y.json", "-", "[" * 80 + "]" * 80, "[" * 9000 + "]" * 9000, "{a: " * 100 + "1" + "}" * 100,
    "[" + "1, " * 3000 + "1]",
)  # fmt: skip

# as keys of YAML
ODD_NAMES: Final = (
    "kind", "nodez", "Nodes", "NODES", " nodes", "'nodes '", "nodes.x", "''", "1", "null", "true", "<<", "'<<'",
    "-", "?", "[a]", "{a: 1}", "*a", "&a x", "!!str x", 'n\u043edes', 'nodes\u200b', "x" * 300, "x" * 5000,
    "__class__", "model_config", "_folder", "schema", "'a b'", '"\\0"', "self", "copy", '\U0001f600', '\u202ex',
    "model_fields",
)  # fmt: skip

ODD_BYTES: Final = (
    b"\t", b":", b"-", b"[", b"]", b"{", b"}", b"&a ", b"*a", b"!", b"'", b'"', b"\n", b"\r", b"#", b"?", b"|",
    b">", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc2\x85",
    b"\xe2\x80\xa8", b"\x1b[2J", b"\x7f", b"\xe2\x80\x8b", b"\xcc\x81", b"9" * 50, b" " * 3000, b"- " * 300,
    b"\n\n\n", b"%", b"@", b",",
)  # fmt: skip
