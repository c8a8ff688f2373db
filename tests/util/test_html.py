"""Tables in HTML, read by Python's parser of HTML."""

from html.parser import HTMLParser

from qmigtool.util.html import SHOWN, html_table, html_text

EVIL = "<script>\"'&\x1b[31m"


class Reader(HTMLParser):
    """The tags of a page, its cells, and its other text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.other, self.inside = [], [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert not attrs
        self.tags.append(tag)
        self.inside = tag == "td"
        if self.inside:
            self.cells.append("")

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data
        else:
            self.other.append(data)


def test_names_are_text_and_no_markup():
    page = Reader(html_table(EVIL, [EVIL], [[EVIL]], [EVIL]))
    assert "script" not in page.tags
    assert page.cells == ["<script>\"'&\\x1b[31m"]
    assert html_text(EVIL) == "&lt;script&gt;&quot;&#x27;&amp;\\x1b[31m"


def test_cells():
    page = Reader(html_table("t", list("abcd"), [[None, True, False, 7]]))
    assert page.cells == ["", "yes", "no", "7"]
    assert page.tags.count("tr") == 2


def test_an_empty_table_is_left_out():
    assert "table" not in Reader(html_table("t", ["a"], [], ["a note"])).tags


def test_a_long_table_has_an_end():
    text = html_table("t", ["a"], ([number] for number in range(SHOWN + 3)))
    assert Reader(text).tags.count("td") == SHOWN
    assert "... and 3 more" in text
