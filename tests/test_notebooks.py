"""``_repr_html_``: what a notebook shows. Names come from files, so all of them are escaped."""

import html.parser

import pytest

import qmigtool
from qmigtool.check import CheckResult
from qmigtool.diff import Comparison, Difference, DifferenceKind
from qmigtool.documents.presence import Presence, PresenceTable
from qmigtool.findings import Finding, Report, Rule, Severity
from qmigtool.preflight.loader.verdict import Verdict
from qmigtool.preflight.outcome import Preflight
from qmigtool.xsave import Layout
from tests.support import samplefiles
from tests.support.streamwriter import PAGE, StreamWriter, eos, mem_size, x86_cpu, zero

HOSTILE = "<script>alert('x')</script>\"&\x1b[31m\u202e"
TAGS = {"div", "p", "b", "table", "thead", "tbody", "tr", "th", "td"}


class Parsed(html.parser.HTMLParser):
    """The tags, and the text between them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert not attrs
        self.open.append(tag)
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f"{data}\n"


def parsed(shown):
    found = Parsed(shown._repr_html_())
    assert not found.open
    assert set(found.tags) <= TAGS
    assert not set(found.text) & {"\x1b", "\u202e"}
    return found


@pytest.fixture
def stream():
    with qmigtool.open(samplefiles.path("kvm-avx512-7.2")) as stream:
        yield stream


def test_what_is_shown(stream):
    vcpu = stream.vcpus[0]
    assert {"pc-i440fx-7.2", "kvm (inferred"} <= {part[:13] for part in parsed(stream).text.splitlines()}
    assert {"opmask", "yes"} <= set(parsed(vcpu).text.splitlines())
    area = parsed(vcpu.xsave)
    assert "standard" in area.text
    assert {"ZMM_Hi256", "1024"} <= set(area.text.splitlines())
    layout = parsed(qmigtool.layout("amd-zen4"))
    assert {"PKRU", "2432"} <= set(layout.text.splitlines())
    table = parsed(qmigtool.presence_table(stream))
    assert {"opmask", "edcl"} <= set(table.text.splitlines())
    with qmigtool.open(samplefiles.path("pc-7.2")) as other:
        compared = parsed(qmigtool.compare(stream, other))
    assert "cpu@0/env.xcr0" in compared.text.splitlines()
    result = qmigtool.check.run(samplefiles.path("pc-7.2"))
    assert "FINE (0)" in parsed(result).text
    target = qmigtool.preflight.read_targets(["7.2"])
    assert parsed(qmigtool.preflight.preflight(stream, target)).text


def test_a_frame_of_the_presence_table_is_escaped():
    frame = qmigtool.tables.table(qmigtool.tables.Column("name", "category", ""))(named)()
    shown = frame._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def named():
    """Names."""
    yield (HOSTILE,)


def test_hostile_names_are_escaped(tmp_path):
    finding = Finding("rule", Severity.ERROR, HOSTILE, HOSTILE, device=HOSTILE, path=HOSTILE, offset=1)
    report = Report(HOSTILE, (Rule("rule", Severity.ERROR, HOSTILE),), (finding,))
    difference = Difference(
        device=HOSTILE, path=HOSTILE, kind=DifferenceKind.CHANGED, a=HOSTILE, b=HOSTILE, words=HOSTILE, topic=HOSTILE
    )
    verdict = Verdict(False, (HOSTILE,))
    row = qmigtool.layout("amd-zen4")
    layout = Layout(**{**{name: getattr(row, name) for name in row.__slots__}, "name": HOSTILE, "title": HOSTILE})
    for one in (
        finding,
        report,
        Report(HOSTILE, (), ()),
        CheckResult((report,)),
        difference,
        Comparison((difference,), (), (HOSTILE,), (HOSTILE,)),
        Preflight(verdict, (finding,), None, ()),
        layout,
        PresenceTable((Presence(HOSTILE, {}, {}, HOSTILE, None),)),
    ):
        assert "<script>alert('x')</script>" in parsed(one).text


def test_a_hostile_stream_is_escaped(tmp_path):
    w = StreamWriter()
    name = "<script>&"
    w.start(1, "ram", 0, 4, mem_size([(name, PAGE)]) + eos())
    w.end(1, zero(0, name) + eos())
    w.device(2, "cpu", 0, x86_cpu(0))
    path = tmp_path / "<b>name.mig"
    path.write_bytes(w.finish())
    with qmigtool.open(path) as stream:
        shown = parsed(stream)
        assert str(path) in shown.text
        assert name in shown.text
        assert parsed(stream.vcpus[0])
        assert str(path) in parsed(qmigtool.presence_table(stream)).text
    assert parsed(stream).text == "<Stream, closed>\n"


def test_long_tables_end():
    difference = Difference(device="d", path="p", kind=DifferenceKind.CHANGED, a=1, b=2)
    shown = parsed(Comparison((difference,) * 1000))
    assert shown.tags.count("tr") == 201
    assert "... and 800 more" in shown.text
