"""Words of others cannot steer a terminal."""

from autoresearch.core.printable import printable, printable_line


def test_each_character_that_is_not_printed_gives_way_to_a_blank():
    assert printable("a\x1b[31mb\n\u202ec\ud800") == "a [31mb  c "
    assert printable("plain  words, ü and 漢") == "plain  words, ü and 漢"


def test_a_line_has_one_blank_between_two_words():
    assert printable_line("\ta\x07  b\r\nc ") == "a b c"
