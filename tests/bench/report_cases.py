"""Results to report, and what a page of them holds."""

import html
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser

from lmwp_bench import results as bench
from lmwp_bench.report import write_report
from lmwp_bench.results import Results, Row, Speedup, Timing

ENVIRONMENT = {
    "created": "2030-01-02T03:04:05+00:00",
    "cpu": "Test CPU",
    "cores": 4,
    "threads": 1,
    "instruction_set": "avx2",
    "flush_denormal": True,
    "gpu": None,
    "torch": "2.99.0",
    "packages": {"ncnn": None},
}
MACHINE = {"copy_bandwidth": 10e9, "peak_rate": 100e9, "cache_bytes": 2**20}
PLANTED = "<script>alert('&')</script> $\\no$"


def ok(
    variant, milliseconds, speedup=None, *, suite="ops", subject="an_op", case="small", **fields
):
    """A valid row; its percentiles are 10 % off the median."""
    params = fields.pop("params", {"device": "cpu", "batch": 1})
    seconds = milliseconds / 1e3
    return Row(
        suite,
        subject,
        case,
        params,
        variant,
        "ok",
        timing=Timing(0.9 * seconds, seconds, 1.1 * seconds, 9),
        speedup=speedup and Speedup(0.9 * speedup, speedup, 1.1 * speedup),
        **fields,
    )


def rejected(variant, status, reason="because", **fields):
    """A row without a time."""
    row = ok(variant, 1.0, **fields)
    return replace(row, status=status, reason=reason, timing=None, speedup=None)


def op_case(**fields):
    """One op with all statuses: the copy in 1 ms, eager in 4, compile in 2, ours in 8."""
    cost = {"bytes": 8_000_000, "operations": 40_000_000}
    wrong = ok("ncnn", 0.1234, 32.4, **fields)
    return [
        ok("copy", 1.0, 4.0, bytes=cost["bytes"], **fields),
        ok("eager", 4.0, 1.0, error=1e-7, allowed=2e-6, peak_memory=2**20, **cost, **fields),
        ok("compile", 2.0, 2.0, launches=3, **cost, **fields),
        replace(wrong, status="wrong", reason="error 0.5, allowed 0.1"),
        rejected("tensorrt", "unavailable", "is not installed", **fields),
        rejected("openvino", "failed", PLANTED, **fields),
        ok("lmwp-cpp", 8.0, 0.5, **cost, **fields),
    ]


def network_case(batch, ours, **fields):
    """A network at a batch where eager takes 10 ms an image and ours is `ours` times as fast."""
    common = {
        "suite": "models",
        "subject": "a-net",
        "case": f"32x32, batch {batch}",
        "params": {"device": "cpu", "batch": batch, "size": "32x32"},
        **fields,
    }
    eager = 10.0 * batch
    return [
        ok("eager", eager, 1.0, **common),
        ok("openvino", eager / 2, 2.0, **common),
        ok("lmwp-modules", eager / ours, ours, **common),
    ]


def training_case():
    phases = {"data": 0.001, "forward": 0.003, "backward": 0.005, "optimiser": 0.001}
    rows = network_case(4, 1.25, suite="training")
    return [replace(row, phases=phases, peak_memory=3 * 2**20) for row in rows]


def run_of(rows, complete=True, **environment):
    return Results(ENVIRONMENT | environment, MACHINE, rows, complete)


@dataclass
class Page(HTMLParser):
    """What a browser would find: lines of tables, texts in bold, addresses, unclosed tags."""

    source: str
    open: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    lines: list[list[str]] = field(default_factory=list)
    bold: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    text: str = ""
    _loss: bool = False

    def __post_init__(self):
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self._note(attrs)
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.lines.append([])
        elif tag in ("td", "th"):
            self.lines[-1].append("")
        self._loss = tag == "span" and ("class", "loss") in attrs

    def handle_startendtag(self, tag, attrs):
        self._note(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.lines[-1][-1] += data
        if "b" in self.open:
            self.bold.append(data)
        if self._loss:
            self.losses.append(data)

    def handle_comment(self, data):
        self.comments.append(html.unescape(data).strip())

    def _note(self, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def line(self, variant):
        """The only line of `variant`, whatever its role."""
        names = [variant, *(f"{variant} {role}" for role in ("baseline", "floor"))]
        (found,) = [line for line in self.lines if line and line[0].strip() in names]
        return [cell.strip() for cell in found]


def make_page(folder, **runs):
    for name, run in runs.items():
        bench.save(run, folder / f"{name}.json")
    return Page(write_report(folder, folder / "report.html").read_text("utf-8"))
