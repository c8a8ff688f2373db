"""Any legal edits, in any order: the stream is the one that would have been written so in the first place."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import qmigtool
from tests.rewrite.editing import assert_true, full_sections, get, pairs_of, rewritten, sample, subsection_bytes, writer
from tests.support.streamwriter import Vmsd, num, nums, raw, struct_, x86_cpu

# -- a model ----------------------------------------------------------------------------------------------------------

SUB = Vmsd("dev/sub", 1, [num("s", "uint16", 5)], [Vmsd("dev/sub/in", 2, [raw("data", b"in")])])
DEVICES = [
    ("timer", 0, Vmsd("timer", 2, [num("ticks", "int64", 1), num("clock", "int64", 2)])),
    ("dev", 0, Vmsd("dev", 3, [num("n", "uint32", 7), nums("l", "int16", [1, -1]), raw("b", b"buffer")], [SUB])),
    ("dev", 1, Vmsd("dev", 3, [num("n", "uint32", 8), struct_("in", Vmsd("in", 1, [num("x", "bool", 1)]))], [SUB])),
    ("0000:00:01.0/dev", 0, Vmsd("dev", 1, [raw("b", b"x")])),
    ("cpu", 0, x86_cpu()),
]
NAMES = st.one_of(
    st.sampled_from(["dev", "cpu", "0000:00:02.0/dev", "n", "dev/sub", "a" * 255]),
    st.text(st.characters(codec="utf-8", exclude_characters="/@[]", exclude_categories=["Cs"]), min_size=1, max_size=9),
)
# QEMU before 6.0 escapes nothing in its JSON: a text of that style and odd names do not go together.
PLAIN = st.text(st.sampled_from("abz:.-_ 019"), min_size=1, max_size=9)
WORDS = st.integers(0, (1 << 32) - 1)
RANGES = {"uint8": (0, 255), "uint16": (0, 65535), "uint32": (0, (1 << 32) - 1), "int16": (-(1 << 15), (1 << 15) - 1)}
RANGES |= {"int64": (-(1 << 63), (1 << 63) - 1), "uint64": (0, (1 << 64) - 1)}


class Model:
    """The stream to make: devices as the writer takes them; ``edits`` is how to get there."""

    def __init__(self, style):
        self.style = style
        self.machine = "pc-i440fx-7.2"
        self.devices = [[number, *device] for number, device in enumerate(DEVICES, start=2)]
        self.next = len(DEVICES) + 2
        self.edits = []
        self.names = PLAIN if style["spaced"] else NAMES

    def start(self):
        w = writer(*DEVICES, footers=self.style["footers"])
        return w.finish(spaced=self.style["spaced"])

    def wanted(self):
        w = writer(footers=self.style["footers"], machine=self.machine)
        for number, name, instance, vmsd in self.devices:
            w.device(number, name, instance, vmsd)
        return w.finish(spaced=self.style["spaced"])

    def step(self, draw):
        """Draw one legal edit, and make it to the model; some draws give none."""
        kinds = [self.set, self.machine_type, self.version, self.subsection, self.drop_subsection, self.rename]
        if len(self.devices) > 1:
            kinds.append(self.drop)
        draw(st.sampled_from([*kinds, self.add, self.add, self.rename_subsection]))(draw)

    def pick(self, draw):
        device = draw(st.sampled_from(self.devices))
        return device, f"{device[1]}@{device[2]}"

    def free(self, name, instance):
        return all(d[1:3] != [name, instance] for d in self.devices)

    def set(self, draw):
        device, label = self.pick(draw)
        places = [
            (i, item.entries[0])
            for i, item in enumerate(device[3].fields)
            if len(item.entries) == 1 and (get(item.entries[0], "type") in (*RANGES, "buffer"))
        ]
        if not places:
            return
        index, entry = draw(st.sampled_from(places))
        name, type_, count = get(entry, "name"), get(entry, "type"), get(entry, "array_len")
        if type_ == "buffer":
            value = draw(st.binary(min_size=get(entry, "size"), max_size=get(entry, "size")))
            new = raw(name, value)
        elif count is None:
            value = draw(st.integers(*RANGES[type_]))
            new = num(name, type_, value)
        else:
            value = draw(st.lists(st.integers(*RANGES[type_]), min_size=count, max_size=count))
            new = nums(name, type_, value)
        fields = [*device[3].fields[:index], new, *device[3].fields[index + 1 :]]
        device[3] = replace(device[3], fields=fields)
        self.edits.append(lambda r: r.set(f"{label}/{name}", value))

    def machine_type(self, draw):
        name = draw(st.one_of(st.sampled_from(["pc-q35-9.2", "x" * 255, ""]), self.names))
        self.machine = name
        self.edits.append(lambda r: r.machine_type(name))

    def version(self, draw):
        device, label = self.pick(draw)
        version = draw(WORDS)
        device[3] = replace(device[3], version=version)
        self.edits.append(lambda r: r.set_version(label, version))

    def drop(self, draw):
        device, label = self.pick(draw)
        self.devices.remove(device)
        self.edits.append(lambda r: r.drop_section(label))

    def rename(self, draw):
        device, label = self.pick(draw)
        name, instance = draw(self.names), draw(WORDS)
        if len(name.encode()) <= 255 and self.free(name, instance):
            device[1:3] = [name, instance]
            self.edits.append(lambda r: r.rename_section(label, name, instance))

    def add(self, draw):
        device, label = self.pick(draw)
        name, instance, version, data = (
            draw(self.names),
            draw(WORDS),
            draw(WORDS),
            draw(st.binary(min_size=1, max_size=20)),
        )
        if not self.free(name, instance):
            return
        vmsd = Vmsd(name.rsplit("/", 1)[-1], version, [raw("data", data)])
        self.devices.insert(self.devices.index(device) + 1, [self.next, name, instance, vmsd])
        self.next += 1
        self.edits.append(lambda r: r.add_section(name, version, instance, data=data, after=label))

    def subsection(self, draw):
        device, label = self.pick(draw)
        name, data = draw(self.names), draw(st.binary(min_size=1, max_size=20))
        version = draw(WORDS)
        taken = {get(e, "name") for item in device[3].fields for e in item.entries}
        taken |= {sub.name for sub in device[3].subsections}
        if any(one.startswith(name) or name.startswith(one) for one in taken):
            return
        sub = Vmsd(name, version, [raw("data", data)])
        device[3] = replace(device[3], subsections=[*device[3].subsections, sub])
        self.edits.append(lambda r: r.add_subsection(label, name, data=data, version=version))

    def drop_subsection(self, draw):
        device, label = self.pick(draw)
        if device[3].subsections:
            sub = draw(st.sampled_from(list(device[3].subsections)))
            device[3] = replace(device[3], subsections=[one for one in device[3].subsections if one is not sub])
            self.edits.append(lambda r: r.drop_subsection(f"{label}/{sub.name}"))

    def rename_subsection(self, draw):
        device, label = self.pick(draw)
        subs = list(device[3].subsections)
        if subs:
            index = draw(st.integers(0, len(subs) - 1))
            old, name = subs[index].name, draw(st.sampled_from(["dev/better", "dev/best", "q"]))
            if all(sub.name != name for sub in subs):
                subs[index] = replace(subs[index], name=name)
                device[3] = replace(device[3], subsections=subs)
                self.edits.append(lambda r: r.rename_subsection(f"{label}/{old}", name))


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.booleans(), st.booleans(), st.integers(1, 10), st.data())
def test_the_result_is_the_one_that_the_model_says(footers, spaced, count, data):
    model = Model({"footers": footers, "spaced": spaced})
    for _ in range(count):
        model.step(data.draw)
    done = rewritten(model.start(), *model.edits)
    assert done.data == model.wanted()
    assert rewritten(model.start(), *model.edits).data == done.data
    if len({(d[1], d[2]) for d in model.devices}) == len(model.devices):
        assert_true(done.data)
    # Splice by splice, by hand.
    out, at = bytearray(), 0
    for splice in done.splices:
        assert splice.offset >= at
        out += model.start()[at : splice.offset] + splice.data
        at = splice.offset + splice.length
    assert out + model.start()[at:] == done.data


# -- real streams -----------------------------------------------------------------------------------------------------

SMALL = ["microvm-10.0", "m68k-virt-7.2", "mips-malta-7.2", "multifd-none-7.2", "sparc64-sun4u-10.0", "nofooter-7.2"]


def leaves(fields, prefix=""):
    for field in fields:
        kind = str(field.kind)
        if kind == "leaf" or (kind == "array" and field.value is not None):
            yield prefix + field.name
        elif kind in ("struct", "subsection"):
            yield from leaves(field.children, f"{prefix}{field.name}/")


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(SMALL), st.data())
def test_what_no_edit_touches_is_the_same_in_a_real_stream(name, data):
    source = sample(name)
    before = full_sections(source)
    touched, gone, edits = set(), set(), []
    with qmigtool.open(source) as stream:
        for device in data.draw(st.lists(st.sampled_from(stream.devices), max_size=4, unique_by=lambda d: d.label)):
            kind = data.draw(st.sampled_from(["set", "drop", "add", "version", "subsection"]))
            label = device.label
            paths = sorted(leaves(device.fields))
            if kind == "set" and paths:
                path = data.draw(st.sampled_from(paths))
                length = device.field(path).length
                value = data.draw(st.binary(min_size=length, max_size=length))
                edits.append(lambda r, p=f"{label}/{path}", v=value: r.set(p, v))
            elif kind == "drop":
                gone.add((device.name, device.instance_id))
                edits.append(lambda r, p=label: r.drop_section(p))
            elif kind == "add":
                edits.append(lambda r, p=label: r.add_section("new", 1, r.draft.section(p).at, data=b"new", after=p))
                continue
            elif kind == "version":
                edits.append(lambda r, p=label: r.set_version(p, 77))
            else:
                edits.append(lambda r, p=label: r.add_subsection(p, "odd/one", data=b"12345"))
            touched.add((device.name, device.instance_id))
    edits = data.draw(st.permutations(edits))
    done = rewritten(source, *edits)
    after = full_sections(done.data)
    assert_true(done.data)
    rest = [s for s in before if s[:2] not in touched]
    assert [s for s in after if s[:2] not in touched and s[0] != "new"] == rest
    assert [s[:2] for s in after if s[0] != "new"] == [s[:2] for s in before if s[:2] not in gone]
    for section in after:
        if section[0] == "new":
            assert section[4] == b"new"
        elif section[:2] in touched and section[4].endswith(b"12345"):
            assert section[4].endswith(subsection_bytes("odd/one", 1, b"12345"))
    # What is not device state: RAM, commands, configuration; and of the vmdesc every device that stays as it is.
    with qmigtool.open(source) as old, qmigtool.open(done.data) as new:
        kept = [
            [bytes(s.source.view(x.offset, x.length)) for x in s.sections if x.type not in ("full", "vmdesc")]
            for s in (old, new)
        ]
        assert kept[0] == kept[1]
        texts = [
            [
                d
                for d in get(pairs_of(s.vmdesc_text), "devices")
                if (get(d, "name"), get(d, "instance_id")) not in touched
            ]
            for s in (old, new)
        ]
        assert texts[0] == [d for d in texts[1] if get(d, "name") != "new"]
    assert rewritten(source, *edits).data == done.data
    assert (done.data == source.read_bytes()) == (not done.splices)
